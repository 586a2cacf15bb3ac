"""LowerToInteger on int16 tensors: every operator, and networks in which they meet int8 ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tvm
from operator_graphs import CASES, extreme, fused
from relax_graphs import apply, network, run, samples, stats_of
from tvm import relax

from hwptq.backends.backend import why_not_run
from hwptq.ir.dataflow import bindings, constant, op_name
from hwptq.passes import FoldBatchNorm, FuseConvRelu, InsertQDQ, LowerToInteger, SelectKernels
from hwptq.report.coverage import float_nodes
from hwptq.targets import load_target

ARM, AVX2 = load_target("arm-cortex-a"), load_target("x86-64-avx2")
#: All in int16, what has no weights too.
WIDE = replace(ARM, ops=tuple(replace(rule, pairs=(("int16", "int8"),)) for rule in ARM.ops))
#: Beside half a step: what fixed point adds, as sums in steps of 2^-13 of a coarser operand.
STEPS = 4


def _scale(mod: tvm.IRModule) -> float:
    value = next(v for _, v in reversed(bindings(mod["main"])) if op_name(v) == "dequantize")
    return float(constant(value.args[1]))


def _dtypes(mod: tvm.IRModule) -> set[str]:
    return {str(v.ty.dtype) for v, value in bindings(mod["main"]) if op_name(value) == "quantize"}


@pytest.mark.parametrize("name", CASES)
def test_every_operator(name: str) -> None:
    before = apply(InsertQDQ(WIDE, stats_of(fused(name))), fused(name))
    after = apply(LowerToInteger(WIDE), before)
    assert _dtypes(before) == {"int16"}
    assert float_nodes(after) == []
    data, scale = [*samples(before), extreme(before)], _scale(before)
    for first, second in zip(run(before, data), run(after, data), strict=True):
        for a, b in zip(first, second, strict=True):
            assert a.shape == b.shape
            assert np.abs(np.rint((a.astype(np.float64) - b) / scale)).max() <= STEPS


def _mixed(pairs: Any) -> tuple[tvm.IRModule, tvm.IRModule, tvm.IRModule]:
    """The network of the other tests: (float, QDQ, integers) with these pairs in turn."""
    mod = tvm.ir.transform.Sequential([FoldBatchNorm(), FuseConvRelu()])(network())
    layers = [str(v.name) for v, value in bindings(mod["main"]) if _is_layer(mod, value)]
    assignment = {name: pairs[i % len(pairs)] for i, name in enumerate(layers)}
    qdq = apply(InsertQDQ(ARM, stats_of(mod), assignment=assignment), mod)
    return mod, qdq, apply(LowerToInteger(ARM), qdq)


def _is_layer(mod: tvm.IRModule, value: Any) -> bool:
    called = isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.GlobalVar)
    return called and len(value.args) > 1 and constant(value.args[1]) is not None


@pytest.mark.parametrize(
    "pairs",
    [
        [("int16", "int8")], [("int16", "int8"), ("int8", "int8")], [("int8", "int8"), ("int16", "int4")],
        [("int8", "int8"), ("int8", "int8"), ("int16", "int8")],
    ],
)  # fmt: skip
def test_tensors_of_both_widths_meet(pairs: Any) -> None:
    mod, qdq, integer = _mixed(pairs)
    assert "int16" in _dtypes(qdq)
    assert float_nodes(integer) == []
    data = samples(mod)
    exact, found = (np.concatenate([o.reshape(-1) for r in run(m, data) for o in r]) for m in (mod, integer))
    assert np.linalg.norm(exact - found) < 0.1 * np.linalg.norm(exact)
    if why_not_run(AVX2) is None:
        kernels = tvm.compile(apply(SelectKernels(AVX2), integer), tvm.target.Target(dict(AVX2.tvm)))
        machine = relax.VirtualMachine(kernels, tvm.cpu())
        for sample, outputs in zip(data, run(integer, data), strict=True):
            (x,) = sample.values()
            np.testing.assert_array_equal(machine["main"](tvm.runtime.tensor(x)).numpy(), outputs[0])
