"""JoinRealKernels: the kernels that a gated block with dynamic activations becomes on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax

from hwptq import passes
from hwptq.ir.dataflow import bindings, op_name
from hwptq.passes.graph.group_plan import GroupFormats
from hwptq.targets import load_target

HOPPER = load_target("nvidia-hopper-fp8")
WIDTH, INNER = 64, 96


def block(keep_gate: bool = False) -> tvm.IRModule:
    """y = x + down(gate(n) * sigmoid(gate(n)) * up(n)), n the RMS norm of x + x."""
    rng = np.random.default_rng(0)
    weights = [
        relax.const(rng.standard_normal(shape).astype(np.float32))
        for shape in ((WIDTH, INNER), (WIDTH, INNER), (INNER, WIDTH))
    ]
    x = relax.Var("x", relax.TensorType((1, 5, WIDTH), "float32"))
    builder, op = relax.BlockBuilder(), relax.op
    with builder.function("main", [x]):
        with builder.dataflow():
            total = builder.emit(op.add(x, x))
            n = builder.emit(op.nn.rms_norm(total, relax.const(np.ones(WIDTH, np.float32)), [-1], 1e-5))
            gate, up = (builder.emit(op.matmul(n, w)) for w in weights[:2])
            mixed = builder.emit(
                op.multiply(builder.emit(op.multiply(gate, builder.emit(op.sigmoid(gate)))), up)
            )
            y = builder.emit(op.add(total, builder.emit(op.matmul(mixed, weights[2]))))
            out = builder.emit_output(relax.Tuple([y, gate]) if keep_gate else y)
        builder.emit_func_output(out)
    return builder.get()


def kernels(mod: tvm.IRModule, groups: Any = None, target: Any = HOPPER) -> list[str]:
    """The names of the kernels that are called, without numbers."""
    steps = [
        passes.FuseNorms(), passes.FuseConvRelu(), passes.InsertDynamicQDQ(target, groups=groups),
        passes.LowerToInteger(target), passes.ExactFunctions(target), passes.JoinRealKernels(target),
    ]  # fmt: skip
    made = tvm.ir.transform.Sequential(steps)(mod)
    calls = [value for _, value in bindings(made["main"]) if op_name(value) == "call_tir"]
    return [str(call.args[0].name_hint).removeprefix("hwptq_").rstrip("_0123456789") for call in calls]


GROUPS = GroupFormats("int4", 32, "int4", 32)


@pytest.mark.parametrize(("groups", "dense"), [(GROUPS, "group_dense_rescaled"), (None, "dense_float_wgmma")])
def test_a_gated_block_is_seven_kernels(groups: Any, dense: str) -> None:
    found = kernels(block(), groups)
    assert sorted(found) == sorted(
        ["row_codes", dense, dense, "elements", "row_codes", dense, "real_arithmetic"]
    )


def test_what_others_read_stays_a_tensor() -> None:
    assert kernels(block(keep_gate=True), GROUPS).count("group_dense_rescaled") == 3


def test_a_processor_has_a_kernel_for_each() -> None:
    found = kernels(block(), GROUPS, load_target("x86-64-vnni"))
    assert "elements" not in found
    assert {"row_scale", "row_quantize", "row_rescale", "real_sigmoid"} <= set(found)
