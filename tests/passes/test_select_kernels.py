"""SelectKernels: the code of each target computes the integers that LowerToInteger has decided on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from operator_graphs import CASES, extreme, qdq
from relax_graphs import apply, network, run, same, samples, stats_of
from tvm import relax

from hwptq.backends.toolchain import why_not_run
from hwptq.kernels.builder import TEMPLATE
from hwptq.passes import FoldBatchNorm, FuseConvRelu, InsertQDQ, LowerToInteger, SelectKernels
from hwptq.passes.graph.dataflow import bindings
from hwptq.quant import integer_ops as ops
from hwptq.targets import Descriptor, load_target

NATIVE = ("x86-64-avx2", "x86-64-vnni")
ARM = load_target("arm-cortex-a")


def native(name: str) -> Descriptor:
    """A target whose code runs on this machine; else the test is skipped."""
    target = load_target(name)
    if reason := why_not_run(target):
        pytest.skip(f"{name}: {reason}")
    return target


def compiled(mod: tvm.IRModule, target: Any, data: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    """The first output for each sample, by TVM's virtual machine."""
    machine = relax.VirtualMachine(tvm.compile(mod, target=target), tvm.cpu())
    return [machine["main"](*map(tvm.runtime.tensor, s.values())).numpy() for s in data]


@pytest.fixture(scope="module")
def integer() -> tvm.IRModule:
    """The integer form of the network, one layer with int4 weights."""
    mod = tvm.ir.transform.Sequential([FoldBatchNorm(), FuseConvRelu()])(network())
    assignment = {"stem": ("int8", "int4")}
    return LowerToInteger()(InsertQDQ(ARM, stats_of(mod), assignment=assignment)(mod))


@pytest.mark.parametrize("name", NATIVE)
def test_the_outputs_of_a_network_stay_the_same(integer: tvm.IRModule, name: str):
    target = native(name)
    kernels = apply(SelectKernels(target), integer)
    data = [*samples(integer, 8), extreme(integer)]
    expected = [out for (out,) in run(integer, data)]
    device = tvm.target.Target(dict(target.tvm))
    for mod in (integer, kernels):
        np.testing.assert_array_equal(compiled(mod, device, data), expected)


@pytest.mark.parametrize("name", [n for n in CASES if "conv" not in n and "pool" not in n])
def test_the_portable_code_of_every_operator(name: str):
    """On any LLVM target; convolutions and pools have cases of their own in tests/kernels."""
    mod = LowerToInteger()(qdq(name))
    data = [*samples(mod, 2), extreme(mod)]
    np.testing.assert_array_equal(compiled(mod, "llvm", data), [out for (out,) in run(mod, data)])


def test_a_second_time_changes_nothing(integer: tvm.IRModule):
    kernels = apply(SelectKernels(ARM), integer)
    assert same(apply(SelectKernels(ARM), kernels), kernels)


def test_layers_get_the_kernels_of_the_descriptor(integer: tvm.IRModule):
    kernels = SelectKernels(ARM)(integer)
    templates = {str(f.attrs[TEMPLATE]) for f in kernels.functions.values() if TEMPLATE in (f.attrs or {})}
    named = (ARM.kernels[ARM.rule(kind).kernel] for kind in ("conv2d", "depthwise_conv2d", "dense"))
    assert {kernel.template for kernel in named} <= templates
    kept = [ops.from_json(str(f.attrs[ops.ATTRIBUTE])) for f in kernels.functions.values()
            if ops.ATTRIBUTE in (f.attrs or {})]  # fmt: skip
    assert not any(isinstance(op, ops.Conv2d | ops.Dense) for op in kept)


def test_equal_steps_share_a_function():
    from relax_graphs import const, graph, nn

    def build(emit: Any, x: Any) -> Any:
        for _ in range(3):
            x = emit(nn.max_pool2d(x, (1, 1)))
            x = emit(nn.conv2d(x, const(8, 8, 1, 1)))
        return x

    mod = tvm.ir.transform.Sequential([FuseConvRelu()])(graph(build, x=(1, 8, 4, 4)))
    kernels = SelectKernels(ARM)(LowerToInteger()(InsertQDQ(ARM, stats_of(mod))(mod)))
    pools = [f for f in kernels.functions.values() if "max_pool" in str((f.attrs or {}).get(ops.ATTRIBUTE))]
    assert len(pools) == 1


def test_weights_must_be_constants():
    mod = LowerToInteger()(qdq("sigmoid"))
    builder = relax.BlockBuilder(mod)
    gv = next(g for g, f in mod.functions.items() if "lookup" in g.name_hint)
    x, table = (relax.Var(n, relax.TensorType(s, "int8")) for n, s in (("x", (1, 7, 9, 6)), ("t", (256,))))
    with builder.function("second", [x, table]):
        with builder.dataflow():
            call = relax.call_tir(gv, [x, table], relax.TensorType((1, 7, 9, 6), "int8"))
            out = builder.emit_output(builder.emit(call, name_hint="layer"))
        builder.emit_func_output(out)
    with pytest.raises(ValueError, match="layer: weights, biases and tables must be constants"):
        SelectKernels(ARM)(builder.get())


def test_what_stays_in_float_keeps_the_names_of_its_nodes():
    """Verification finds tensors of the integer graph in the emitted one by their names."""
    fused = apply(FuseConvRelu(), apply(FoldBatchNorm(), network()))
    before = apply(LowerToInteger(), apply(InsertQDQ(ARM, stats_of(fused), exclude="stem|residual"), fused))
    after = apply(SelectKernels(ARM), before)
    names = [{str(v.name) for v, _ in bindings(m["main"])} for m in (before, after)]
    assert {"stem", "residual"} <= names[0] <= names[1]
