"""SmoothActivations: outputs stay, channels of outliers shrink, what else reads a norm sees it unchanged."""

from __future__ import annotations

import numpy as np
import pytest
from relax_graphs import apply, const, graph, operators, outputs_preserved, samples, stats_of, tensors
from tvm import relax

from hwptq import passes
from hwptq.evaluate.interpret import Interpreter
from hwptq.formats import INT16
from hwptq.ir.dataflow import bindings, constant, op_name
from hwptq.lowering.operand import constant_operand
from hwptq.passes.graph.divisible import divisible
from hwptq.passes.graph.quantizable import float_reasons
from hwptq.passes.smooth_activations import SmoothActivations
from hwptq.targets import load_target

op, nn = relax.op, relax.op.nn


def encoder(residual=True, outlier=50.0):
    """A layer norm with one channel of outliers, read by two dense layers and perhaps by a residual."""

    def build(emit, x):
        gamma = np.ones(8, np.float32)
        gamma[3] = outlier
        y = emit(nn.layer_norm(x, relax.const(gamma), const(8, seed=4), axes=[-1]), "norm")
        a = emit(op.add(emit(op.matmul(y, const(8, 8, seed=1)), "query"), const(8, seed=2)))
        b = emit(op.matmul(y, const(8, 8, seed=3)), "key")
        out = emit(op.add(a, b), "sum")
        return emit(op.add(out, y), "residual") if residual else out

    return apply(passes.FuseConvRelu(), graph(build, x=(1, 5, 8)))


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_outputs_stay(residual, strength):
    mod = encoder(residual)
    outputs_preserved(mod, apply(SmoothActivations(samples(mod, 3), strength), mod))


@pytest.mark.parametrize(("residual", "norms"), [(True, 2), (False, 1)])
def test_the_norm_is_doubled_only_for_other_readers(residual, norms):
    mod = encoder(residual)
    after = apply(SmoothActivations(samples(mod, 3)), mod)
    assert operators(after).count("nn.layer_norm") == norms


def test_beside_other_readers_a_product_does_what_a_second_norm_would():
    mod = encoder(residual=True)
    data = samples(mod, 20)
    after = apply(SmoothActivations(data, target=load_target("x86-64-vnni")), mod)
    outputs_preserved(mod, after)
    assert operators(after).count("nn.layer_norm") == 1
    assert operators(after).count("multiply") == operators(mod).count("multiply") + 1
    old, new = (tensors(m, data[0])["norm"] for m in (mod, after))
    np.testing.assert_array_equal(old, new)


def test_factors_follow_the_paper():
    """With all of the strength on the activations, every channel reaches equally far on the samples."""
    mod, data = encoder(residual=False), samples(encoder(), 4)
    after = apply(SmoothActivations(data, 1.0), mod)
    reach = np.max([np.abs(tensors(after, s)["norm"]).max(axis=(0, 1)) for s in data], axis=0)
    np.testing.assert_allclose(reach, reach[0], rtol=1e-5)
    old, new = (stats_of(m, data).ranges for m in (mod, apply(SmoothActivations(data, 0.5), mod)))
    assert np.ptp(new["norm"]) < 0.5 * np.ptp(old["norm"])


def test_a_dead_channel_stays():
    def build(emit, x):
        gamma, beta = np.ones(4, np.float32), np.ones(4, np.float32)
        gamma[1] = beta[1] = 0
        y = emit(nn.layer_norm(x, relax.const(gamma), relax.const(beta), axes=[-1]), "norm")
        return emit(op.matmul(y, const(4, 3)), "dense")

    mod = apply(passes.FuseConvRelu(), graph(build, x=(2, 4)))
    after = apply(SmoothActivations(samples(mod, 2)), mod)
    (norm,) = [v for _, v in bindings(after["main"]) if op_name(v) == "nn.layer_norm"]
    assert constant(norm.args[1])[1] == 0
    outputs_preserved(mod, after)


def test_nothing_to_smooth():
    mod = graph(lambda emit, x: emit(nn.relu(x)), x=(1, 4))
    assert operators(apply(SmoothActivations(samples(mod, 1)), mod)) == ["nn.relu"]


@pytest.mark.parametrize("strength", [-0.1, 1.5])
def test_a_strength_out_of_range_is_refused(strength):
    with pytest.raises(ValueError, match="strength of smoothing"):
        SmoothActivations([], strength)


def test_samples_are_needed():
    mod = encoder()
    with pytest.raises(ValueError, match="at least one sample"):
        apply(SmoothActivations([]), mod)


def rms(emit, x, name, outlier=60.0):
    """x / sqrt(mean(x^2) + eps) * gamma, as torch exports it; one channel of gamma is large."""
    gamma = np.ones(8, np.float32)
    gamma[2] = outlier
    mean = emit(op.mean(emit(op.power(x, relax.const(2.0, "float32"))), axis=[-1], keepdims=True))
    root = emit(op.sqrt(emit(op.add(mean, relax.const(1e-5, "float32")))))
    inverse = emit(op.divide(relax.const(1.0, "float32"), root))
    return emit(op.multiply(emit(op.multiply(x, inverse)), relax.const(gamma)), name)


def whole_rms(emit, x, name, outlier=60.0):
    """The same as one operator."""
    gamma = np.ones(8, np.float32)
    gamma[2] = outlier
    return emit(nn.rms_norm(x, relax.const(gamma), axes=[-1]), name)


@pytest.mark.parametrize("norm", [rms, whole_rms])
@pytest.mark.parametrize("strength", [None, 0.5])
def test_rms_norms_are_smoothed_through_all_their_readers(norm, strength):
    def build(emit, x):
        y = norm(emit, x, "norm")
        gate, up = (emit(op.matmul(y, const(8, 16, seed=s)), n) for s, n in ((1, "gate"), (2, "up")))
        return emit(op.multiply(emit(op.sigmoid(gate), "sigmoid"), up), "product")

    mod = apply(passes.FuseConvRelu(), graph(build, x=(1, 5, 8)))
    data = samples(mod, 4)
    after = apply(SmoothActivations(data, strength), mod)
    outputs_preserved(mod, after)
    assert operators(after) == operators(mod)
    old, new = (stats_of(m, data).ranges["norm"] for m in (mod, after))
    assert np.ptp(new) < 0.5 * np.ptp(old)


def gated(emit, x, outlier=80.0):
    """down(sigmoid(gate x) * up x), one channel of up is large."""
    wide = np.array(const(8, 16, seed=2).value.numpy())
    wide[:, 5] *= outlier
    gate = emit(op.sigmoid(emit(op.matmul(x, const(8, 16, seed=1)), "gate")), "sigmoid")
    up = emit(op.add(emit(op.matmul(x, relax.const(wide)), "up"), const(16, seed=7)), "up_bias")
    return emit(op.matmul(emit(op.multiply(gate, up), "product"), const(16, 8, seed=3)), "down")


def attention(emit, x, outlier=80.0):
    """Two heads of queries share one of values, 4 wide, of which one channel is large."""
    wide = np.array(const(8, 4, seed=2).value.numpy())
    wide[:, 1] *= outlier
    scores = emit(op.matmul(x, const(8, 12, seed=1)), "scores")
    scores = emit(op.permute_dims(emit(op.reshape(scores, (1, 6, 2, 6))), (0, 2, 1, 3)))
    values = emit(op.expand_dims(emit(op.matmul(x, relax.const(wide)), "values"), 1))
    values = emit(op.broadcast_to(values, (1, 2, 6, 4)))
    heads = emit(op.permute_dims(emit(op.matmul(emit(nn.softmax(scores)), values), "av"), (0, 2, 1, 3)))
    joined = emit(op.reshape(heads, (1, 6, 8)), "joined")
    return emit(op.matmul(joined, const(8, 8, seed=3)), "out")


@pytest.mark.parametrize(("block", "tensor"), [(gated, "product"), (attention, "joined")])
@pytest.mark.parametrize("strength", [None, 0.5])
def test_a_layer_is_divided_where_all_between_is_linear_in_it(block, tensor, strength):
    mod = apply(passes.FuseConvRelu(), graph(block, x=(1, 6, 8)))
    data = samples(mod, 4)
    after = apply(SmoothActivations(data, strength), mod)
    outputs_preserved(mod, after)
    assert operators(after) == operators(mod)
    old, new = (stats_of(m, data).ranges[tensor] for m in (mod, after))
    assert np.ptp(new) < 0.5 * np.ptp(old)


def test_what_is_read_twice_or_bent_is_not_divided():
    """A residual, and a function that is not linear, between two dense layers."""

    def build(emit, x):
        a = emit(op.matmul(x, const(8, 8, seed=1)), "first")
        b = emit(op.add(a, emit(op.matmul(a, const(8, 8, seed=2)), "second")), "sum")
        c = emit(op.tanh(emit(op.matmul(b, const(8, 8, seed=3)), "third")), "tanh")
        return emit(op.matmul(c, const(8, 8, seed=4)), "fourth")

    mod = apply(passes.FuseConvRelu(), graph(build, x=(1, 5, 8)))
    assert divisible(mod, mod["main"]) == []


def bent(emit, x, outlier=80.0):
    """A norm, and behind it a function by table of which one channel is large."""
    wide = np.array(const(8, 16, seed=2).value.numpy())
    wide[:, 5] *= outlier
    norm = emit(nn.layer_norm(x, const(8, seed=4), const(8, seed=5), axes=[-1]), "norm")
    gelu = emit(nn.gelu(emit(op.matmul(norm, relax.const(wide)), "up")), "gelu")
    return emit(op.matmul(gelu, const(16, 8, seed=3)), "down")


def test_a_function_by_table_is_divided_where_the_target_holds_it_in_more_than_a_byte():
    mod = apply(passes.FuseConvRelu(), graph(bent, x=(1, 6, 8)))
    data = samples(mod, 40)
    after = apply(SmoothActivations(data, target=load_target("x86-64-vnni")), mod)
    outputs_preserved(mod, after)
    assert operators(after).count("multiply") == operators(mod).count("multiply") + 1
    old, new = (stats_of(m, data).ranges["gelu"] for m in (mod, after))
    assert np.ptp(new) < 0.5 * np.ptp(old)


@pytest.mark.parametrize("others", [{}, {"target": "nvidia-ada-fp8"}, {"dtypes": ("int16", "int8")}])
def test_a_function_by_table_stays_elsewhere(others):
    """No target, one without products of integers, layers that read more than a byte."""
    mod = apply(passes.FuseConvRelu(), graph(bent, x=(1, 6, 8)))
    named = {"target": load_target(others.get("target", "x86-64-vnni"))} if others else {}
    dtypes = {k: v for k, v in others.items() if k == "dtypes"}
    after = apply(SmoothActivations(samples(mod, 40), **named, **dtypes), mod)
    assert operators(after).count("multiply") == operators(mod).count("multiply")


def test_what_it_is_multiplied_with_is_held_exactly():
    """The inverses are codes of the int16 that a constant beside an int16 tensor becomes."""
    mod = apply(passes.FuseConvRelu(), graph(bent, x=(1, 6, 8)))
    after = apply(SmoothActivations(samples(mod, 40), target=load_target("x86-64-vnni")), mod)
    (product,) = [v for _, v in bindings(after["main"]) if op_name(v) == "multiply"]
    inverse = constant(product.args[1])
    held = constant_operand(inverse, INT16)
    np.testing.assert_allclose(held.tensor * float(held.scale), inverse, rtol=1e-6)
    assert held.tensor.min() >= 1


def side_by_side(ratio: float, joined: bool, elsewhere: bool = False):
    """A dense layer on channels of which some are `ratio` times as large as others, and as little needed."""

    def build(emit, x):
        sizes = np.where(np.arange(8) < 5, 1, ratio).astype(np.float32)
        y = x
        if joined:
            left = emit(nn.relu(emit(op.matmul(x, const(8, 5, seed=1)))), "left")
            right = emit(op.matmul(x, relax.const(ratio * np.eye(8, 3, dtype=np.float32))), "right")
            y = emit(op.concat([left, right], axis=-1), "joined")
        weight = constant(const(8, 6, seed=2)) / sizes[:, None]
        out = emit(op.matmul(y, relax.const(weight.astype(np.float32))), "dense")
        return emit(op.concat([out, y], axis=-1)) if elsewhere else out

    return apply(passes.FuseConvRelu(), graph(build, x=(1, 5, 8)))


def unlike(mod, ratio: float, joined: bool):
    """Samples of it."""
    sizes = 1 if joined else np.where(np.arange(8) < 5, 1, ratio).astype(np.float32)
    return [{"x": s["x"] * sizes} for s in samples(mod, 12)]


@pytest.mark.parametrize("joined", [True, False], ids=["concatenation", "input"])
def test_channels_side_by_side_become_alike(joined: bool):
    mod, target = side_by_side(1000, joined), load_target("x86-64-vnni")
    data = unlike(mod, 1000, joined)
    after = apply(SmoothActivations(data, target=target), mod)
    for sample in data[:3]:
        was, now = (Interpreter(m).run(sample)[0] for m in (mod, after))
        np.testing.assert_allclose(now, was, rtol=1e-4, atol=1e-3 * np.abs(was).max())

    def lost(module) -> float:
        """Noise of the integers, by the power of the result."""
        qdq = apply(passes.InsertQDQ(target, stats_of(module, data)), module)
        pairs = [[Interpreter(m).run(s)[0] for m in (mod, qdq)] for s in data]
        return sum(np.sum((a - b) ** 2) for a, b in pairs) / sum(np.sum(a**2) for a, _ in pairs)

    assert lost(after) < 0.01 < 0.1 < lost(mod)


@pytest.mark.parametrize("joined", [True, False], ids=["concatenation", "input"])
def test_beside_scales_for_each_token_too(joined: bool):
    """All channels of a token share its scale."""
    mod, target = side_by_side(1000, joined), load_target("x86-64-vnni")
    data = unlike(mod, 1000, joined)
    after = apply(SmoothActivations(data, per_token=True), mod)

    def lost(module) -> float:
        qdq = apply(passes.InsertDynamicQDQ(target), module)
        pairs = [[Interpreter(m).run(s)[0] for m in (mod, qdq)] for s in data]
        return sum(np.sum((a - b) ** 2) for a, b in pairs) / sum(np.sum(a**2) for a, _ in pairs)

    assert lost(after) < 0.01 < 0.1 < lost(mod)


def test_the_product_of_an_input_is_left_in_float():
    mod = side_by_side(1000, joined=False)
    after = apply(SmoothActivations(unlike(mod, 1000, False), target=load_target("x86-64-vnni")), mod)
    assert list(float_reasons(after["main"])) == ["x#1"]


@pytest.mark.parametrize(("ratio", "elsewhere"), [(1, False), (1000, True)], ids=["alike", "read elsewhere"])
def test_what_stands_side_by_side_and_stays(ratio: float, elsewhere: bool):
    mod = side_by_side(ratio, joined=True, elsewhere=elsewhere)
    after = apply(SmoothActivations(unlike(mod, ratio, True), target=load_target("x86-64-vnni")), mod)
    assert "multiply" not in operators(after)
