"""InsertQDQ: what is quantized, with which parameters, and what stays in float and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tvm
from relax_graphs import (
    apply,
    const,
    graph,
    labels,
    network,
    nn,
    op,
    operators,
    same,
    samples,
    sqnr,
    stats_of,
    tensors,
)
from tvm import relax

from hwptq.ir.dataflow import bindings, constant, op_name
from hwptq.passes import FoldBatchNorm, FuseConvRelu, InsertQDQ
from hwptq.passes.graph.quantizable import LAYER_DTYPES, float_reasons, layer_dtypes
from hwptq.passes.graph.quantization_plan import HEADROOM
from hwptq.targets import load_target

ARM = load_target("arm-cortex-a")
LAYERS = ("stem", "depthwise", "dense")


def fused(build: Any, **shapes: tuple[int, ...]) -> tvm.IRModule:
    return tvm.ir.transform.Sequential([FoldBatchNorm(), FuseConvRelu()])(graph(build, **shapes))


@pytest.fixture(scope="module")
def demo() -> tvm.IRModule:
    return tvm.ir.transform.Sequential([FoldBatchNorm(), FuseConvRelu()])(network())


@pytest.fixture(scope="module")
def stats(demo: tvm.IRModule) -> Any:
    return stats_of(demo)


def params(mod: tvm.IRModule) -> dict[str, tuple[float, int]]:
    """(scale, zero point) of every activation, by the name of what it quantizes."""
    found = {}
    for var, value in bindings(mod["main"]):
        if op_name(value) == "quantize":
            scale, zero = (constant(a) for a in value.args[1:3])
            found[labels(mod)[var]] = (float(scale), int(zero))
    return found


def weights(mod: tvm.IRModule) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(values, scales) of every weight, by the name of its layer."""
    return {
        labels(mod)[var]: (constant(value.args[0]), constant(value.args[1]))
        for var, value in bindings(mod["main"])
        if op_name(value) == "dequantize" and constant(value.args[0]) is not None
    }


def test_every_tensor_of_the_network(demo: tvm.IRModule, stats: Any):
    qdq = apply(InsertQDQ(ARM, stats), demo)
    found = params(qdq)
    assert set(found) == {
        "x", "stem", "depthwise", "residual", "sigmoid", "concat", "max_pool", "mean", "dense"
    }  # fmt: skip
    assert set(weights(qdq)) == set(LAYERS)
    assert float_reasons(qdq["main"]) == {}
    assert layer_dtypes(qdq["main"]) == dict.fromkeys(LAYERS, ("int8", "int8"))
    assert sqnr(demo, qdq) > 25


def test_a_second_time_changes_nothing(demo: tvm.IRModule, stats: Any):
    qdq = apply(InsertQDQ(ARM, stats), demo)
    assert same(apply(InsertQDQ(ARM, stats), qdq), qdq)


def test_ranges_are_covered(demo: tvm.IRModule, stats: Any):
    for name, (scale, zero) in params(InsertQDQ(ARM, stats)(demo)).items():
        low, high = stats.ranges[name]
        assert (-128 - zero) * scale <= low + scale / 2 + 1e-5
        assert (127 - zero) * scale >= high - scale / 2 - 1e-5


def test_the_last_quantized_tensor_has_headroom(demo: tvm.IRModule, stats: Any):
    """A logit beyond what calibration saw must not tie with others."""
    found = params(InsertQDQ(ARM, stats)(demo))
    low, high = stats.ranges["dense"]
    assert low < 0 < high
    assert found["dense"][0] == pytest.approx(HEADROOM * (high - low) / 255, rel=1e-5)
    low, high = stats.ranges["stem"]
    assert found["stem"][0] == pytest.approx((high - low) / 255, rel=1e-5)


def test_tied_tensors_share_a_scale(demo: tvm.IRModule, stats: Any):
    found = params(InsertQDQ(ARM, stats)(demo))
    assert found["concat"] == found["max_pool"] == found["residual"]
    assert found["sigmoid"][0] < found["concat"][0] / 4  # it would lose more than two bits


def test_multipliers_stay_below_one_half(demo: tvm.IRModule, stats: Any):
    qdq = InsertQDQ(ARM, stats)(demo)
    found = params(qdq)
    for layer, source in (("stem", "x"), ("depthwise", "stem"), ("dense", "mean")):
        _, scales = weights(qdq)[layer]
        assert found[source][0] * scales.max() / found[layer][0] < 0.5


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_granularity_of_weights(demo: tvm.IRModule, stats: Any, granularity: str):
    for values, scales in weights(InsertQDQ(ARM, stats, granularity)(demo)).values():
        channels = len(scales)
        assert channels in values.shape
        assert len(set(scales.tolist())) == (1 if granularity == "tensor" else channels)
        assert np.abs(values.astype(int)).max() == 127


def test_excluded_nodes_stay_in_float(demo: tvm.IRModule, stats: Any):
    qdq = apply(InsertQDQ(ARM, stats, exclude="^(stem|dense)$"), demo)
    assert set(weights(qdq)) == {"depthwise"}
    assert float_reasons(qdq["main"]) == dict.fromkeys(("stem", "dense"), "excluded by the user")


def test_operators_that_the_target_lacks_stay_in_float(demo: tvm.IRModule, stats: Any):
    ops = tuple(rule for rule in ARM.ops if rule.op not in ("depthwise_conv2d", "avg_pool"))
    qdq = apply(InsertQDQ(replace(ARM, ops=ops), stats), demo)
    assert float_reasons(qdq["main"]) == {
        "depthwise": "target arm-cortex-a lists no operator depthwise_conv2d",
        "mean": "target arm-cortex-a lists no operator avg_pool",
    }
    assert set(weights(qdq)) == {"stem", "dense"}


def test_tables_that_only_float_reads_are_not_worth_it():
    def build(emit: Any, x: Any) -> Any:
        y = emit(nn.conv2d(x, const(4, 3, 1, 1)), "conv")
        tanh = emit(op.tanh(y), "tanh")
        squares = emit(op.multiply(tanh, tanh), "square")
        moved = emit(op.expand_dims(squares, 1), "moved")
        return emit(op.cumsum(moved, 1), "cumsum")

    mod = fused(build, x=(1, 3, 4, 4))
    qdq = apply(InsertQDQ(ARM, stats_of(mod)), mod)
    assert set(weights(qdq)) == {"conv"}
    names = ("tanh", "square", "moved")
    assert float_reasons(qdq["main"]) == dict.fromkeys(names, "only operators in float read it")


def test_tables_alone_are_not_worth_it():
    mod = fused(lambda emit, x: emit(op.sigmoid(emit(op.tanh(x), "tanh")), "sigmoid"), x=(1, 8))
    qdq = apply(InsertQDQ(ARM, stats_of(mod)), mod)
    assert params(qdq) == {}
    assert set(float_reasons(qdq["main"]).values()) == {"no operator beside it computes in integers"}


def test_a_chain_of_functions_is_quantized_once():
    """x * sigmoid(x): one table, so nothing between is rounded."""

    def build(emit: Any, x: Any) -> Any:
        y = emit(nn.conv2d(x, const(4, 3, 1, 1)), "conv")
        return emit(op.multiply(y, emit(op.sigmoid(y), "inner")), "swish")

    mod = fused(build, x=(1, 3, 4, 4))
    assert set(params(apply(InsertQDQ(ARM, stats_of(mod)), mod))) == {"x", "conv", "swish"}


def test_a_large_bias_raises_scales_until_it_fits():
    """The bias is 2^26 times the product of the ranges of input and weight, the accumulator has 30 bits."""

    def build(emit: Any, x: Any) -> Any:
        y = emit(nn.conv2d(x, relax.const(np.full((1, 1, 1, 1), 2.0**-10, np.float32))), "conv")
        return emit(op.add(y, relax.const(np.full((1, 1, 1, 1), 2.0**16, np.float32))))

    mod = fused(build, x=(1, 1, 4, 4))
    qdq = apply(InsertQDQ(ARM, stats_of(mod)), mod)
    _, (scale,) = weights(qdq)["conv"]
    assert 2.0**16 / (params(qdq)["x"][0] * scale) <= 2.0**28 * 1.001


INT4 = {"stem": ("int8", "int4"), "dense": ("int4", "int4")}


def test_an_assignment_of_int4(demo: tvm.IRModule, stats: Any):
    qdq = apply(InsertQDQ(ARM, stats, assignment=INT4), demo)
    assert LAYER_DTYPES in qdq["main"].attrs
    assert layer_dtypes(qdq["main"]) == {**INT4, "depthwise": ("int8", "int8")}
    limits = {name: int(np.abs(v.astype(int)).max()) for name, (v, _) in weights(qdq).items()}
    assert limits == {"stem": 7, "depthwise": 127, "dense": 7}
    assert operators(qdq).count("clip") == 1  # before mean, the only int4 activation
    scale, zero = params(qdq)["mean"]
    seen = tensors(qdq, samples(demo)[0])
    ints = seen["mean_q"]
    assert ints.dtype == np.int8
    assert set(ints.ravel()) <= set(range(-8, 8))
    np.testing.assert_array_equal(seen["mean_dq"], (ints.astype(np.float32) - zero) * np.float32(scale))
    assert sqnr(demo, qdq) > 8


def test_int4_activations_need_readers_that_all_take_them(demo: tvm.IRModule, stats: Any):
    """The residual reads what the depthwise layer reads."""
    qdq = InsertQDQ(ARM, stats, assignment={"depthwise": ("int4", "int8")})(demo)
    assert layer_dtypes(qdq["main"])["depthwise"] == ("int8", "int8")
    assert "clip" not in operators(qdq)
