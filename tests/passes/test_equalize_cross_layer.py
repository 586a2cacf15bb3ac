"""EqualizeCrossLayer: outputs stay, the ranges of neighbouring weights become equal, clamps are kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relax_graphs import apply, const, graph, network, nn, op, operators, outputs_preserved, stats_of
from tvm import relax

from hwptq import passes
from hwptq.passes.equalize_cross_layer import DEAD
from hwptq.passes.graph.channel_links import channel_links, layers
from hwptq.passes.graph.quantizable import equalization
from hwptq.targets import load_target

ARM = load_target("arm-cortex-a")


def fused(mod):
    return apply(passes.FuseConvRelu(), apply(passes.FoldBatchNorm(), mod))


def uneven(*shape, seed=0):
    """Weights whose output channels differ in range by up to a hundred."""
    factor = np.float32(10) ** np.random.default_rng(seed).uniform(-1, 1, shape[0]).astype(np.float32)
    return relax.const(const(*shape, seed=seed).value.numpy() * factor.reshape(-1, *[1] * (len(shape) - 1)))


def between(emit, kind, x, channels):
    """What may stand between two layers."""
    match kind:
        case "relu":
            return emit(nn.relu(x))
        case "relu6":
            return emit(op.clip(x, 0, 6))
        case "clip":
            return emit(op.clip(x, -0.5, 0.75))
        case "leaky":
            return emit(nn.leakyrelu(x, 0.1))
        case "prelu":
            return emit(nn.prelu(x, const(channels, seed=5)))
        case "max_pool":
            return emit(nn.max_pool2d(emit(nn.relu(x)), (2, 2), (1, 1)))
        case "avg_pool":
            return emit(nn.avg_pool2d(x, (2, 2), (1, 1), padding=(1, 1, 0, 0), count_include_pad=True))
        case "pad":
            return emit(nn.pad(x, [0, 0, 0, 0, 1, 2, 0, 1]))
    return x


KINDS = ["relu", "relu6", "clip", "leaky", "prelu", "max_pool", "avg_pool", "pad", "none"]


def chain(kinds, seed=0, head="flatten"):
    """conv - depthwise - conv - dense - dense with `kinds` between the first ones."""

    def build(emit, x):
        y = emit(nn.conv2d(x, uneven(6, 3, 3, 3, seed=seed), padding=1), "first")
        y = between(emit, kinds[0], emit(op.add(y, const(1, 6, 1, 1, seed=seed)), "first_bias"), 6)
        y = emit(nn.conv2d(y, uneven(6, 1, 3, 3, seed=seed + 1), padding=1, groups=6), "depthwise")
        y = between(emit, kinds[1], y, 6)
        y = emit(nn.conv2d(y, uneven(8, 3, 1, 1, seed=seed + 2), groups=2), "grouped")
        y = between(emit, kinds[2], emit(op.add(y, const(8, 1, 1, seed=seed + 2)), "grouped_bias"), 8)
        if head == "flatten":
            size = int(y.ty.shape.values[2]) * int(y.ty.shape.values[3])
            y, width = emit(op.reshape(y, (1, 8 * size))), 8 * size
        else:
            y, width = emit(op.mean(y, axis=[2, 3])), 8
        y = emit(nn.relu(emit(op.matmul(y, const(width, 7, seed=seed + 3)), "dense1")))
        return emit(op.add(emit(op.matmul(y, const(7, 4, seed=seed + 4)), "dense2"), const(4)), "dense2_bias")

    return graph(build, x=(1, 3, 6, 5))


def ranges(mod):
    """[(producer, its largest weight a channel, the largest weight of its reader a channel)]"""
    func, found = mod["main"], []
    units = layers(mod, func)
    for link in channel_links(mod, func)[0]:
        weight = units[link.producer].args[1].value.numpy()
        by_output = weight if units[link.producer].kind == "conv2d" else weight.T
        r1 = np.abs(by_output).reshape(len(by_output), -1).max(axis=1)
        (reader,) = link.readers
        unit = units[reader.var]
        w = unit.args[1].value.numpy()
        if unit.kind == "conv2d":
            g = int(unit.head.attrs.groups)
            r = np.abs(w).reshape(g, w.shape[0] // g, w.shape[1], -1).max(axis=(1, 3)).ravel()
        else:
            r = np.abs(w).max(axis=1)
        found.append(
            (str(link.producer.name), r1, np.asarray([r[reader.channels == c].max() for c in range(len(r1))]))
        )
    return found


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.sampled_from(KINDS), min_size=3, max_size=3),
    st.integers(0, 1000),
    st.sampled_from(["flatten", "mean"]),
)
def test_outputs_stay_and_ranges_become_equal(kinds, seed, head):
    before = fused(chain(kinds, seed, head))
    after = apply(passes.EqualizeCrossLayer(), before)
    outputs_preserved(before, after)
    found = ranges(after)
    assert [name for name, _, _ in found] == ["first", "depthwise", "grouped", "dense1"]
    for name, r1, r2 in found:
        np.testing.assert_allclose(r1, r2, rtol=1e-3, err_msg=name)


def test_the_ranges_differed_before():
    assert any(not np.allclose(r1, r2, rtol=0.5) for _, r1, r2 in ranges(fused(chain(["relu"] * 3))))


def test_equalizing_twice_changes_nothing_more():
    once = apply(passes.EqualizeCrossLayer(), fused(chain(["relu6", "relu", "leaky"])))
    twice = apply(passes.EqualizeCrossLayer(), once)
    for (_, a, _), (_, b, _) in zip(ranges(once), ranges(twice), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3)


def test_a_clip_is_divided_by_the_scale_of_its_channel():
    before = fused(chain(["relu6", "none", "none"]))
    after = apply(passes.EqualizeCrossLayer(), before)
    unit, old = (
        next(u for v, u in layers(m, m["main"]).items() if v.name == "first") for m in (after, before)
    )
    scale = np.abs(old.args[1].value.numpy()).max((1, 2, 3)) / np.abs(unit.args[1].value.numpy()).max(
        (1, 2, 3)
    )
    low, high = unit.bounds
    assert low == 0
    np.testing.assert_allclose(high, 6 / scale, rtol=1e-4)
    assert np.ptp(high) > 1


def test_a_clip_by_channel_becomes_a_clamp_of_the_integer_graph():
    before = fused(chain(["relu6", "clip", "none"]))
    after = apply(passes.EqualizeCrossLayer(), before)
    qdq = apply(passes.InsertQDQ(load_target("x86-64-vnni"), stats_of(after)), after)
    integer = apply(passes.LowerToInteger(ARM), qdq)
    assert "hwptq_clamp" in {gv.name_hint for gv in integer.functions}


def with_dead_channel(bias):
    """Two layers; channel 1 of the first has no weights to speak of, the second reads it with a large one."""
    first, second = const(4, 3, 1, 1).value.numpy(), const(2, 4, 1, 1, seed=1).value.numpy()
    first[1] = np.abs(first).max() * DEAD * 1e-3
    second[:, 1] *= 1000
    shift = np.full((1, 4, 1, 1), 0.1, np.float32)
    shift[0, 1] = bias

    def build(emit, x):
        y = emit(nn.conv2d(x, relax.const(first)), "first")
        y = emit(op.clip(emit(op.add(y, relax.const(shift))), 0, 6))
        return emit(nn.conv2d(y, relax.const(second)), "second")

    return fused(graph(build, x=(1, 3, 4, 4)))


@pytest.mark.parametrize("bias", [0.5, -0.5, 0.0])
def test_a_dead_channel_is_not_equalized(bias):
    before = with_dead_channel(bias)
    after = apply(passes.EqualizeCrossLayer(), before)
    outputs_preserved(before, after)
    ((_, r1, r2),) = ranges(after)
    alive = np.arange(4) != 1
    np.testing.assert_allclose(r1[alive], r2[alive], rtol=1e-3)
    ((_, old1, old2),) = ranges(before)
    if bias > 0:  # its constant output would grow with its weights
        assert (r1[1], r2[1]) == (old1[1], old2[1])
    else:  # it yields zero: the weights that read it need not set the scale of their layer
        assert r2[1] == pytest.approx(r2[alive].max(), rel=1e-3)
        assert r1[1] < DEAD * r1.max() * 1e3


def test_all_channels_dead():
    zero = relax.const(np.zeros((4, 3, 1, 1), np.float32))

    def build(emit, x):
        return emit(nn.conv2d(emit(nn.relu(emit(nn.conv2d(x, zero), "first"))), const(2, 4, 1, 1)), "second")

    before = fused(graph(build, x=(1, 3, 4, 4)))
    outputs_preserved(before, apply(passes.EqualizeCrossLayer(), before))


def test_several_readers_are_scaled_together():
    def build(emit, x):
        y = emit(nn.relu(emit(nn.conv2d(x, uneven(6, 3, 1, 1)), "squeeze")))
        a = emit(nn.conv2d(y, const(4, 6, 1, 1, seed=1)), "narrow")
        b = emit(nn.conv2d(y, const(4, 6, 3, 3, seed=2), padding=1), "wide")
        return emit(op.sigmoid(emit(op.concat([a, b], axis=1), "both")), "gate")

    before = fused(graph(build, x=(1, 3, 5, 5)))
    after = apply(passes.EqualizeCrossLayer(), before)
    outputs_preserved(before, after)
    weights = {str(v.name): u.args[1].value.numpy() for v, u in layers(after, after["main"]).items()}
    both = np.concatenate([np.abs(weights[n]).max((0, 2, 3))[None] for n in ("narrow", "wide")]).max(0)
    np.testing.assert_allclose(np.abs(weights["squeeze"]).max((1, 2, 3)), both, rtol=1e-3)
    reasons = equalization(after["main"])
    why = "sigmoid 'gate' reads it and does not commute with a scale"
    assert reasons == dict.fromkeys(("narrow", "wide"), why)


@pytest.mark.parametrize("twice", [False, True])
def test_channels_are_scaled_through_a_concatenation(twice):
    """A fire module of SqueezeNet: two layers joined, pooled and read by the next; perhaps one twice."""

    def build(emit, x):
        y = emit(nn.relu(emit(nn.conv2d(x, uneven(6, 3, 1, 1)), "squeeze")))
        a = emit(nn.relu(emit(nn.conv2d(y, uneven(4, 6, 1, 1, seed=1)), "narrow")))
        b = between(emit, "relu6", emit(nn.conv2d(y, uneven(5, 6, 3, 3, seed=2), padding=1), "wide"), 5)
        joined = emit(op.concat([a, b, a] if twice else [a, b], axis=1), "both")
        joined = emit(nn.max_pool2d(joined, (2, 2), (1, 1)))
        return emit(nn.conv2d(joined, uneven(7, 13 if twice else 9, 1, 1, seed=3)), "next")

    before = fused(graph(build, x=(1, 3, 5, 5)))
    after = apply(passes.EqualizeCrossLayer(), before)
    outputs_preserved(before, after)
    assert equalization(after["main"]) == {"next": "it is an output of the model"}
    weights = {str(v.name): u.args[1].value.numpy() for v, u in layers(after, after["main"]).items()}
    read = np.abs(weights["next"]).max((0, 2, 3))
    narrow = np.maximum(read[:4], read[9:]) if twice else read[:4]
    np.testing.assert_allclose(np.abs(weights["narrow"]).max((1, 2, 3)), narrow, rtol=1e-3)
    np.testing.assert_allclose(np.abs(weights["wide"]).max((1, 2, 3)), read[4:9], rtol=1e-3)


def test_every_layer_that_stays_has_a_reason():
    before = fused(network())
    after = apply(passes.EqualizeCrossLayer(), before)
    outputs_preserved(before, after)
    assert equalization(after["main"]) == {
        "stem": "add 'residual' joins it with other tensors",
        "depthwise": "add 'residual' joins it with other tensors",
        "dense": "it is an output of the model",
    }
    assert operators(after) == operators(before)


def test_a_function_that_is_not_homogeneous_blocks():
    def build(emit, x):
        y = emit(op.sigmoid(emit(nn.conv2d(x, const(4, 3, 1, 1)), "first")), "gate")
        return emit(nn.conv2d(y, const(2, 4, 1, 1)), "second")

    after = apply(passes.EqualizeCrossLayer(), fused(graph(build, x=(1, 3, 4, 4))))
    assert equalization(after["main"])["first"] == "sigmoid 'gate' reads it and does not commute with a scale"
