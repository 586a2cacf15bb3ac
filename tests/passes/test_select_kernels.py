"""SelectKernels: the code of each target computes the integers that LowerToInteger has decided on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from operator_graphs import CASES, extreme, qdq
from relax_graphs import apply, const, graph, network, nn, run, same, samples, stats_of
from tvm import relax

from hwptq.backends.backend import why_not_run
from hwptq.ir.dataflow import bindings, op_name
from hwptq.ir.operator import ATTRIBUTE, from_json
from hwptq.ir.provenance import Origin, origins
from hwptq.operators.conv2d import Conv2d
from hwptq.operators.dense import Dense
from hwptq.passes import FoldBatchNorm, FuseConvRelu, InsertQDQ, LowerToInteger, SelectKernels
from hwptq.targets import Descriptor, load_target
from hwptq.tir.builder import TEMPLATE

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
    return LowerToInteger(ARM)(InsertQDQ(ARM, stats_of(mod), assignment=assignment)(mod))


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
    mod = LowerToInteger(ARM)(qdq(name))
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
    kept = [from_json(str(f.attrs[ATTRIBUTE])) for f in kernels.functions.values()
            if ATTRIBUTE in (f.attrs or {})]  # fmt: skip
    assert not any(isinstance(op, Conv2d | Dense) for op in kept)


def test_equal_steps_share_a_function():
    def build(emit: Any, x: Any) -> Any:
        for _ in range(3):
            x = emit(nn.max_pool2d(x, (1, 1)))
            x = emit(nn.conv2d(x, const(8, 8, 1, 1)))
        return x

    mod = tvm.ir.transform.Sequential([FuseConvRelu()])(graph(build, x=(1, 8, 4, 4)))
    kernels = SelectKernels(ARM)(LowerToInteger(ARM)(InsertQDQ(ARM, stats_of(mod))(mod)))
    pools = [f for f in kernels.functions.values() if "max_pool" in str((f.attrs or {}).get(ATTRIBUTE))]
    assert len(pools) == 1


def test_weights_must_be_constants():
    mod = LowerToInteger(ARM)(qdq("sigmoid"))
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


def test_what_stays_in_float_keeps_its_origin():
    """Verification finds tensors of the integer graph in the emitted one by their origins."""
    fused = apply(FuseConvRelu(), apply(FoldBatchNorm(), network()))
    before = apply(
        LowerToInteger(ARM), apply(InsertQDQ(ARM, stats_of(fused), exclude="stem|residual"), fused)
    )
    after = apply(SelectKernels(ARM), before)
    float_before, float_after = (
        {origin for var, origin in origins(m["main"]).items() if str(var.ty.dtype) == "float32"}
        for m in (before, after)
    )
    assert {Origin("stem"), Origin("residual")} <= float_before <= float_after


def residual(emit: Any, x: Any) -> Any:
    """Three convolutions, an addition around the second one."""
    a = emit(nn.conv2d(x, const(16, 3, 3, 3), padding=1), "first")
    b = emit(nn.conv2d(a, const(16, 16, 3, 3, seed=1), padding=1), "second")
    c = emit(relax.op.nn.relu(emit(relax.op.add(a, b), "sum")), "sum_relu")
    return emit(nn.conv2d(c, const(16, 16, 3, 3, seed=2), padding=1), "third")


@pytest.mark.parametrize("name", NATIVE)
def test_nothing_is_copied_between_the_layers_of_a_residual_network(name: str):
    """The input is an image at once, layers write the border that the next one reads, the sum is fused."""
    target = native(name)
    fused = FuseConvRelu()(graph(residual, x=(1, 3, 7, 9)))
    integer = LowerToInteger(ARM)(InsertQDQ(target, stats_of(fused))(fused))
    kernels = apply(SelectKernels(target), integer)
    calls = [value for _, value in bindings(kernels["main"]) if op_name(value) == "call_tir"]
    kinds = [str(call.args[0].name_hint).removeprefix("hwptq_").split("_")[0] for call in calls]
    assert kinds[:4] == ["quantize", "conv2d", "conv2d", "conv2d"]
    assert not {"pack", "add", "pad"} & set(kinds)
    data = [*samples(integer, 4), extreme(integer)]
    expected = [out for (out,) in run(integer, data)]
    np.testing.assert_array_equal(compiled(kernels, tvm.target.Target(dict(target.tvm)), data), expected)


def test_an_addition_of_a_tensor_that_is_read_again_is_no_epilogue():
    def build(emit: Any, x: Any) -> Any:
        a = emit(nn.conv2d(x, const(8, 8, 1, 1)), "layer")
        b = emit(nn.max_pool2d(a, (3, 3), padding=(1, 1)), "pool")
        return emit(relax.op.add(a, b), "sum")

    fused = FuseConvRelu()(graph(build, x=(1, 8, 4, 4)))
    kernels = SelectKernels(ARM)(LowerToInteger(ARM)(InsertQDQ(ARM, stats_of(fused))(fused)))
    assert any("add" in gv.name_hint for gv in kernels.functions)


def test_axes_of_an_image_that_are_moved_twice():
    def build(emit: Any, x: Any) -> Any:
        moved = emit(relax.op.permute_dims(x, [0, 2, 3, 1]))
        return emit(nn.avg_pool2d(moved, (2, 2), (1, 1)))

    target = load_target("x86-64-avx2")
    mod = apply(FuseConvRelu(), graph(build, x=(1, 3, 4, 11)))
    integer = apply(LowerToInteger(target), apply(InsertQDQ(target, stats_of(mod)), mod))
    after = apply(SelectKernels(target), integer)
    for (a,), (b,) in zip(run(integer, samples(mod, 2)), run(after, samples(mod, 2)), strict=True):
        np.testing.assert_array_equal(b, a)
