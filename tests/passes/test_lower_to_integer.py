"""LowerToInteger: integers for every operator, what QDQ means to within a step, and reasons for the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from operator_graphs import CASES, extreme, fused, qdq, resize
from relax_graphs import apply, const, graph, network, nn, op, operators, run, same, samples, sqnr, stats_of
from tvm import relax

from hwptq.ir.dataflow import bindings, constant, op_name
from hwptq.operators.conv2d import Conv2d
from hwptq.operators.dequantize import Dequantize
from hwptq.operators.quantize import Quantize
from hwptq.passes import FoldBatchNorm, FuseConvRelu, InsertQDQ, LowerToInteger
from hwptq.passes.graph.quantizable import float_reasons
from hwptq.report.coverage import bits, coverage, float_macs, float_nodes, integer_nodes
from hwptq.targets import load_target

ARM = load_target("arm-cortex-a")


def output_scale(mod: tvm.IRModule) -> float:
    """The scale of what main returns."""
    value = next(v for _, v in reversed(bindings(mod["main"])) if op_name(v) == "dequantize")
    return float(constant(value.args[1]))


def kinds(mod: tvm.IRModule) -> list[str]:
    """The integer operators of a module, in order, without its borders."""
    return [o.kind for _, o, _ in integer_nodes(mod) if o.kind not in ("quantize", "dequantize")]


@pytest.mark.parametrize("name", CASES)
def test_the_integers_are_those_of_qdq(name: str):
    before = qdq(name)
    after = apply(LowerToInteger(ARM), before)
    assert float_nodes(after) == []
    assert float_reasons(after["main"]) == {}
    assert coverage(fused(name), after)["macs_quantized"] == float_macs(fused(name))
    data, scale = [*samples(before), extreme(before)], output_scale(before)
    for first, second in zip(run(before, data), run(after, data), strict=True):
        for a, b in zip(first, second, strict=True):
            assert a.shape == b.shape
            steps = np.rint((a.astype(np.float64) - b) / scale)
            assert np.abs(steps).max() <= CASES[name].steps


def test_a_second_time_changes_nothing():
    after = apply(LowerToInteger(ARM), qdq("conv"))
    assert same(apply(LowerToInteger(ARM), after), after)


def test_a_float_module_stays_as_it_is():
    assert operators(apply(LowerToInteger(ARM), fused("conv"))) == ["hwptq.conv2d"]


def lowered(mod: tvm.IRModule, **options: Any) -> tuple[tvm.IRModule, tvm.IRModule]:
    """The QDQ and the integer form of a float module."""
    mod = tvm.ir.transform.Sequential([FoldBatchNorm(), FuseConvRelu()])(mod)
    before = InsertQDQ(ARM, stats_of(mod), **options)(mod)
    return before, apply(LowerToInteger(ARM), before)


def test_a_network():
    before, after = lowered(network())
    assert kinds(after) == [
        "conv2d", "conv2d", "add", "lookup", "lookup", "max_pool", "avg_pool", "dense"
    ]  # fmt: skip
    assert sqnr(before, after) > 30
    reads = [op for _, op, _ in integer_nodes(after)]
    assert isinstance(reads[0], Quantize)
    assert isinstance(reads[-1], Dequantize)


def test_a_fused_clamp_is_part_of_the_operator():
    _, after = lowered(network())
    stem = next(o for _, o, _ in integer_nodes(after) if isinstance(o, Conv2d))
    assert (stem.lo, stem.out_zero_point) == (-128, -128)  # relu6: no value below zero


INT4 = {"stem": ("int8", "int4"), "dense": ("int4", "int4")}


def test_int4_layers():
    before, after = lowered(network(), assignment=INT4)
    rows = {row["name"]: (row["activation"], row["weight"]) for row in bits(after)}
    assert rows == {**INT4, "depthwise": ("int8", "int8")}
    assert sqnr(before, after) > 15
    for _, node, args in integer_nodes(after):
        if getattr(node, "weight_bits", 8) == 4:
            weight = constant(args[1])
            assert not np.any(weight % 16)
            assert np.abs(weight.astype(int)).max() == 7 * 16


def clamped(low: Any, high: Any) -> tvm.IRModule:
    """A conv composite with a clamp that differs by channel, as CLE leaves it behind a ReLU6."""
    mod = tvm.ir.transform.Sequential([FuseConvRelu()])(
        graph(lambda emit, x: emit(nn.conv2d(x, const(3, 6, 1, 1)), "layer"), x=(1, 6, 7, 9))
    )
    bounds = [relax.const(np.float32(b).reshape(1, 3, 1, 1)) for b in (low, high)]
    (composite,) = (f for f in mod.functions.values() if "Composite" in (f.attrs or {}))
    (call,) = (v for _, v in bindings(mod["main"]) if isinstance(v, relax.Call))
    builder = relax.BlockBuilder()
    params = [relax.Var(f"p{i}", a.ty) for i, a in enumerate([*call.args, *bounds])]
    with builder.function("composite", params):
        with builder.dataflow():
            y = builder.emit(relax.op.nn.conv2d(*params[:2]))
            y = builder.emit(op.maximum(y, params[2]))
            out = builder.emit_output(builder.emit(op.minimum(y, params[3])))
        builder.emit_func_output(out)
    attributes = {"Composite": composite.attrs["Composite"], "Primitive": True}
    function = builder.get()["composite"].with_attrs(attributes).without_attr("global_symbol")
    main = relax.BlockBuilder(tvm.IRModule())
    gv = main.add_func(function, "layer_function")
    x = relax.Var("x", relax.TensorType((1, 6, 7, 9), "float32"))
    with main.function("main", [x]):
        with main.dataflow():
            out = main.emit_output(main.emit(relax.Call(gv, [x, call.args[1], *bounds]), name_hint="layer"))
        main.emit_func_output(out)
    return main.get()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        ([0, 0, 0], [6, 3, 1], ["conv2d", "clamp"]),
        ([-1, 0, -2], [6, 6, 6], ["conv2d", "clamp"]),
        ([0, 0, 0], [0.5, 0.5, 0.5], ["conv2d"]),
    ],
)
def test_a_clamp_by_channel(low: list[float], high: list[float], expected: list[str]):
    mod = clamped(low, high)
    before = InsertQDQ(ARM, stats_of(mod))(mod)
    after = apply(LowerToInteger(ARM), before)
    assert kinds(after) == expected
    data, scale = [*samples(before), extreme(before)], output_scale(before)
    for (a,), (b,) in zip(run(before, data), run(after, data), strict=True):
        assert np.abs(a - b).max() <= 1.001 * scale
        for c in range(3):
            assert low[c] - scale / 2 <= b[:, c].min() * 1.0001
            assert b[:, c].max() <= (high[c] + scale / 2) * 1.0001


def qdq_of(expr: Any, scale: float = 0.05) -> Any:
    """DQ(Q(expr)) by hand."""
    params = (relax.const(np.float32(scale)), relax.const(np.int8(3)))
    return op.dequantize(op.quantize(expr, *params, out_dtype="int8"), *params, out_dtype="float32")


def weight(values: np.ndarray, zero: int = 0) -> Any:
    return op.dequantize(
        relax.const(values.astype(np.int8)), relax.const(np.float32(0.01)), relax.const(np.int8(zero)),
        out_dtype="float32",
    )  # fmt: skip


ONES = np.ones((4, 6, 1, 1))
REASONS = {
    "a weight with a zero point": lambda x: nn.conv2d(x, weight(ONES, 1)),
    "the weight is not a constant": lambda x: nn.conv2d(x, qdq_of(op.reshape(x, (63, 6, 1, 1)))),
    "conv2d of layout NCHW/HWIO": lambda x: nn.conv2d(x, weight(np.ones((1, 1, 6, 4))), kernel_layout="HWIO"),
    "its 32-bit accumulator could overflow": lambda x: op.matmul(x, weight(np.full((70_000, 2), 127))),
    "dilated average pooling": lambda x: nn.avg_pool2d(x, (2, 2), dilation=(2, 2)),
    "adaptive pooling with windows of unequal size": lambda x: nn.adaptive_avg_pool2d(x, (2, 2)),
    "a mean over something else than pixels or tokens": lambda x: op.mean(x, axis=[1]),
    "padding by reflect": lambda x: nn.pad(x, [0, 0, 0, 0, 1, 1, 1, 1], "reflect"),
    "a resize by linear interpolation has no integer form": lambda x: resize(
        x, (9, 9), "half_pixel", "round", "linear"
    ),
    "a resize of a region of interest has no integer form": lambda x: resize(
        x, (9, 9), "tf_crop_and_resize", "round"
    ),
    "a softmax over another axis than the last": lambda x: nn.softmax(x, axis=1),
    "a norm over other axes than the last": lambda x: nn.layer_norm(
        x, op.ones((6, 7, 9), "float32"), op.zeros((6, 7, 9), "float32"), [1, 2, 3]
    ),
    "a group norm of something else than images": lambda x: nn.group_norm(
        x, relax.const(np.ones(9, np.float32)), relax.const(np.zeros(9, np.float32)), 3, 3, [1, 2]
    ),
    "a norm whose scale or offset is computed": lambda x: nn.layer_norm(
        x, op.ones((9,), "float32"), op.zeros((9,), "float32"), [-1]
    ),
}


@pytest.mark.parametrize("reason", REASONS)
def test_what_has_no_integer_form_stays_and_says_why(reason: str):
    """It computes the same in float, between integers."""

    def build(emit: Any, x: Any) -> Any:
        a = emit(qdq_of(x))
        return emit(qdq_of(emit(REASONS[reason](a), "layer"), 0.1))

    shape = (1, 70_000) if "accumulator" in reason else (1, 6, 7, 9)
    before = tvm.ir.transform.Sequential([FuseConvRelu()])(graph(build, x=shape))
    after = apply(LowerToInteger(ARM), before)
    assert float_reasons(after["main"]) == {"layer": reason}
    assert [n["reason"] for n in float_nodes(after) if n["name"] == "layer"] == [reason]
    for a, b in zip(run(before, samples(before)), run(after, samples(before)), strict=True):
        np.testing.assert_allclose(a[0], b[0], atol=0.1001)


def test_the_scale_of_an_activation_must_be_one_constant():
    def build(emit: Any, x: Any) -> Any:
        params = (relax.const(np.ones(6, np.float32)), relax.const(np.zeros(6, np.int8)))
        return emit(op.quantize(x, *params, axis=1, out_dtype="int8"))

    with pytest.raises(ValueError, match="activations must be quantized per tensor"):
        LowerToInteger(ARM)(graph(build, x=(1, 6, 7, 9)))
