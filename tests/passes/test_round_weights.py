"""RoundWeights: QDQ in, QDQ out; the layers see the integers of the lowered graph, and lose less."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from relax_graphs import apply, const, graph, labels, run, samples, stats_of, tensors
from tvm import relax

from hwptq import passes
from hwptq.cache.cache import Cache
from hwptq.evaluate.interpret import Interpreter
from hwptq.evaluate.lockstep import Lockstep, live_bytes
from hwptq.ir.dataflow import bindings
from hwptq.ir.provenance import Part, origins
from hwptq.passes.graph.layer_columns import float_layer
from hwptq.passes.graph.quantizable import layer_dtypes
from hwptq.passes.graph.quantized_layers import quantized_layers
from hwptq.passes.round_weights import RoundingOptions, RoundWeights
from hwptq.pipeline.rounded_alone import PARTS, RoundedAlone, parts, rounded_alone
from hwptq.quant.layer_rounding import rounding_method
from hwptq.recipe import RECIPES
from hwptq.report.coverage import integer_nodes
from hwptq.targets import load_target
from hwptq.workers.workers import Here

op, nn = relax.op, relax.op.nn
TARGET = load_target("x86-64-vnni")
BITS = {"w8": ("int8", "int8"), "w4": ("int8", "int4"), "a4": ("int4", "int4")}

METHODS = ("nearest", "adaround", "gptq", "descent", "clamped")


def fused():
    """Conv, depthwise, residual, pool and dense: [1,3,6,6] -> [1,5]."""

    def build(emit, x):
        a = emit(op.add(emit(nn.conv2d(x, const(8, 3, 3, 3), padding=1), "stem"), const(1, 8, 1, 1)))
        a = emit(op.clip(a, 0, 6), "relu6")
        b = emit(nn.conv2d(a, const(8, 1, 3, 3, seed=1), padding=1, groups=8), "depthwise")
        d = emit(op.mean(emit(op.add(a, b), "residual"), axis=[2, 3]), "mean")
        return emit(op.add(emit(op.matmul(d, const(8, 5)), "dense"), const(5)), "dense_bias")

    return apply(passes.FuseConvRelu(), graph(build, x=(1, 3, 6, 6)))


def inserted(mod, granularity=None, pair=("int8", "int8")):
    names = [str(v.name) for v, _ in bindings(mod["main"])]
    assignment = {name: pair for name in names if name in ("stem", "depthwise", "dense")}
    return apply(passes.InsertQDQ(TARGET, stats_of(mod), granularity, None, assignment), mod)


def noise(mod, qdq, data):
    """Energy of the difference between the float module and the integer graph, over `data`."""
    first, second = Interpreter(mod), Interpreter(apply(passes.LowerToInteger(TARGET), qdq))
    pairs = [zip(first.run(s), second.run(s), strict=True) for s in data]
    return sum(float(np.square(a - b).sum()) for pair in pairs for a, b in pair)


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("method", METHODS)
def test_int4_weights_lose_less_than_rounded_to_nearest(granularity, method):
    mod, data = fused(), samples(fused(), 24)
    plain = inserted(mod, granularity, BITS["w4"])
    rounded = apply(RoundWeights(mod, data, TARGET, RoundingOptions(method)), plain)
    assert noise(mod, rounded, data) < 0.8 * noise(mod, plain, data)


@pytest.mark.parametrize("bits", BITS)
def test_everything_but_the_constants_of_the_layers_stays(bits):
    mod = fused()
    plain = inserted(mod, pair=BITS[bits])
    rounded = apply(RoundWeights(mod, samples(mod, 3), TARGET), plain)
    assert layer_dtypes(rounded["main"]) == layer_dtypes(plain["main"])
    old, new = quantized_layers(plain), quantized_layers(rounded)
    assert list(old) == list(new) == [("main", name) for name in ("stem", "depthwise", "dense")]
    for a, b in zip(old.values(), new.values(), strict=True):
        assert (a.x_scale, a.x_zero, a.out_scale, a.dtype) == (b.x_scale, b.x_zero, b.out_scale, b.dtype)
        assert a.values.shape == b.values.shape
        assert b.values.dtype == np.int8
        assert np.abs(b.values).max() <= b.dtype.qmax
    assert any(np.any(a.values != b.values) for a, b in zip(old.values(), new.values(), strict=True))


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_the_bias_takes_up_the_mean_error_on_the_integers_that_reach_a_layer(granularity):
    """Proves that every layer was settled on what the lowered graph gives it: the errors' means vanish."""
    mod, data = fused(), samples(fused(), 6)
    qdq = apply(RoundWeights(mod, data, TARGET), inserted(mod, granularity, BITS["w4"]))
    assert all(layer.shared_scale == (granularity == "tensor") for layer in quantized_layers(qdq).values())
    integer = apply(passes.LowerToInteger(TARGET), qdq)
    seen = [tensors(integer, sample) for sample in data]
    for var, value in bindings(mod["main"]):
        layer = quantized_layers(qdq).get(("main", labels(mod)[var]))
        if layer is None:
            continue
        assert np.any(layer.bias)
        exact = Lockstep(mod, data)
        exact.run_to(var)
        errors = []
        for env, found in zip(exact.values, seen, strict=True):
            wanted, _ = float_layer(exact.interpreter, value, env)
            errors.append(_real_output(layer, _input(qdq, layer, found)) - wanted)
        error = np.concatenate(errors)
        spread = np.abs(error).max() + 1e-6
        means = error.mean(axis=(0, 2, 3) if error.ndim == 4 else 0)
        np.testing.assert_allclose(means / spread, 0, atol=1e-4)


def _input(qdq, layer, found):
    """The int8 tensor that a layer reads, images as NCHW."""
    origin = origins(qdq["main"])[layer.unit.args[0]]
    codes, image = (origin.with_part(part).hint for part in (Part.CODES, Part.IMAGE))
    if image in found and layer.values.ndim == 4:
        return found[image].transpose(0, 3, 1, 2)
    q = found.get(codes, found.get(image))
    return q if layer.values.ndim == 4 else q.reshape(1, -1)


def _real_output(layer, ints):
    """What the layer computes before its clamp, in real numbers."""
    x = (ints.astype(np.float64) - layer.x_zero) * layer.x_scale
    w = layer.from_rows(
        layer.rows(layer.values) * layer.scale.reshape(layer.groups, -1, 1).astype(np.float64)
    )
    if w.ndim == 2:
        return x @ w + layer.bias
    attrs = layer.unit.head.attrs
    assert [int(s) for s in attrs.strides] == [1, 1]
    pad = int(attrs.padding[0])
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    view = np.lib.stride_tricks.sliding_window_view(padded, w.shape[2:], (2, 3))  # n c h w kh kw
    n, c, h, width = view.shape[:4]
    g = layer.groups
    cols = view.transpose(1, 4, 5, 0, 2, 3).reshape(g, c // g * w.shape[2] * w.shape[3], -1)
    out = (layer.rows(w) @ cols).reshape(len(w), n, h, width).transpose(1, 0, 2, 3)
    return out + layer.bias.reshape(1, -1, 1, 1)


def test_channels_that_never_fire_and_a_large_bias_stay_in_integers():
    """A dead channel has no covariance, and a bias far larger than its weights bounds the weight's scale."""

    def build(emit, x):
        w = np.array(const(4, 2, 3, 3).value.numpy())
        w[1], w[2] = 0, w[2] * 1e-6
        b = np.array([0.1, -5, 100, 0], np.float32).reshape(1, 4, 1, 1)
        a = emit(op.add(emit(nn.conv2d(x, relax.const(w), padding=1), "first"), relax.const(b)))
        a = emit(nn.relu(a), "relu")
        return emit(op.add(emit(nn.conv2d(a, const(3, 4, 1, 1, seed=1)), "second"), const(1, 3, 1, 1)))

    mod = apply(passes.FuseConvRelu(), graph(build, x=(1, 2, 6, 6)))
    plain = apply(passes.InsertQDQ(TARGET, stats_of(mod)), mod)
    rounded = apply(RoundWeights(mod, samples(mod, 4), TARGET), plain)
    integer = apply(passes.LowerToInteger(TARGET), rounded)
    assert len(quantized_layers(rounded)) == 2
    assert [op.kind for _, op, _ in integer_nodes(integer)].count("conv2d") == 2
    assert all(np.isfinite(array).all() for outputs in run(integer, samples(mod, 2)) for array in outputs)


@pytest.mark.parametrize("alone", [False, True])
def test_alone_a_layer_owes_nothing_to_the_layers_before_it(alone):
    """With another stem in front of them, the other layers get the same constants then, and only then."""
    mod, found = fused(), []
    for pair in (BITS["w8"], BITS["w4"]):
        qdq = apply(passes.InsertQDQ(TARGET, stats_of(mod), assignment={"stem": pair}), mod)
        step = RoundWeights(mod, samples(mod, 6), TARGET, RoundingOptions(alone=alone))
        found.append(quantized_layers(apply(step, qdq)))
    for name in ("depthwise", "dense"):
        a, b = (layers["main", name] for layers in found)
        same = [np.array_equal(x, y) for x, y in ((a.values, b.values), (a.scale, b.scale), (a.bias, b.bias))]
        assert all(same) == alone


def test_layers_alone_can_be_rounded_in_parts():
    """Whoever rounds which of them: the constants are those of all at once."""
    mod, target, fed = fused(), TARGET, samples(fused(), 6)
    qdq = [
        apply(passes.InsertQDQ(target, stats_of(mod), assignment={"stem": pair}), mod)
        for pair in BITS.values()
    ]
    recipe = RECIPES["default"]
    method = type(rounding_method(recipe.rounding))
    task = RoundedAlone(mod, tuple(qdq), tuple(fed), recipe, target, Cache(), method)
    whole = RoundingOptions(recipe.rounding, alone=True)
    every = [frozenset(label for _, label in quantized_layers(module)) for module in qdq]
    for module, found in zip(qdq, rounded_alone(task, Here(), every), strict=True):
        divided = parts(quantized_layers(module))
        assert len(divided) == PARTS
        assert sorted(place for part in divided for place in part) == sorted(quantized_layers(module))
        tvm.ir.assert_structural_equal(apply(RoundWeights(mod, fed, target, whole), module), found)


def test_layers_that_nobody_asks_for_stay_alone():
    mod, fed = fused(), samples(fused(), 6)
    qdq = apply(passes.InsertQDQ(TARGET, stats_of(mod)), mod)
    recipe = RECIPES["default"]
    task = RoundedAlone(
        mod, (qdq,), tuple(fed), recipe, TARGET, Cache(), type(rounding_method(recipe.rounding))
    )
    before, (asked, *_) = quantized_layers(qdq), [label for _, label in quantized_layers(qdq)]
    (all_rounded,) = rounded_alone(task, Here(), [frozenset(label for _, label in before)])
    (rounded,) = rounded_alone(task, Here(), [frozenset([asked])])
    for place, layer in quantized_layers(rounded).items():
        wanted = quantized_layers(all_rounded)[place] if place[1] == asked else before[place]
        assert np.array_equal(layer.values, wanted.values)
        assert np.array_equal(layer.scale, wanted.scale)


def test_some_layers_only_where_they_are_alone():
    with pytest.raises(ValueError, match="each is alone"):
        RoundingOptions(only=frozenset())


def test_a_module_without_layers_stays():
    mod = graph(lambda emit, x: emit(nn.relu(x)), x=(1, 4))
    assert len(bindings(apply(RoundWeights(mod, samples(mod, 1), TARGET), mod)["main"])) == len(
        bindings(mod["main"])
    )


def test_no_more_samples_are_read_than_memory_allows():
    mod = fused()
    needed = live_bytes(mod["main"]) + live_bytes(apply(passes.LowerToInteger(TARGET), inserted(mod))["main"])
    taken = []

    def stream():
        for sample in samples(mod, 9):
            taken.append(sample)
            yield sample

    apply(RoundWeights(mod, stream(), TARGET, RoundingOptions(memory=3 * needed)), inserted(mod))
    assert len(taken) == 3


def test_user_errors():
    mod = fused()
    with pytest.raises(ValueError, match="no rounding method"):
        RoundWeights(mod, [], TARGET, RoundingOptions("up"))
    with pytest.raises(ValueError, match="at least one sample"):
        apply(RoundWeights(mod, [], TARGET), inserted(mod))


def test_live_bytes_counts_the_widest_cut():
    def build(emit, x):
        a = emit(nn.relu(x), "a")
        b = emit(op.concat([a, x], axis=1), "b")
        return emit(op.mean(b, axis=[1]), "c")

    assert live_bytes(graph(build, x=(1, 100))["main"]) == 4 * (100 + 100 + 200)


def test_layers_are_counted_as_they_are_rounded():
    mod, seen = fused(), []

    def track(items, total):
        for item in items:
            seen.append((item[-1], total))
            yield item

    apply(RoundWeights(mod, samples(mod, 2), TARGET, track=track), inserted(mod))
    assert seen == [(("main", name), 3) for name in ("stem", "depthwise", "dense")]


def test_samples_of_many_tokens_need_not_be_many():
    """A dense layer of 4,096 rows a sample has enough columns after two."""

    def build(emit, x):
        return emit(op.add(emit(op.matmul(x, const(4, 5)), "dense"), const(5)), "out")

    mod, read = apply(passes.FuseConvRelu(), graph(build, x=(1, 4096, 4))), []
    data = (read.append(s) or s for s in samples(mod, 9))
    apply(RoundWeights(mod, data, TARGET), apply(passes.InsertQDQ(TARGET, stats_of(mod)), mod))
    assert len(read) == 2
