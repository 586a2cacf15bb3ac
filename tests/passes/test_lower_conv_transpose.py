"""LowerConvTranspose: ordinary convolutions of the same outputs, with what follows folded into them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relax_graphs import Emit, apply, batch_norm, const, graph, nn, op, operators, run, same, samples

from hwptq.ir.dataflow import bindings, op_name, shape_of
from hwptq.passes import FoldBatchNorm, FuseConvRelu, LowerConvTranspose
from hwptq.passes.graph.quantizable import float_reasons
from hwptq.passes.graph.subpixel import phase_axis

EXACT = 1e-5  # relative to the largest value


def check(mod: Any) -> Any:
    """The lowered module, which must have no transposed convolution and the same outputs."""
    after = apply(LowerConvTranspose(), mod)
    assert "nn.conv2d_transpose" not in operators(after)
    for (a,), (b,) in zip(run(mod, samples(mod, 2)), run(after, samples(mod, 2)), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, rtol=0, atol=EXACT * np.abs(a).max())
    return after


def axes() -> Any:
    """(image, kernel, stride, padding before and after, dilation, output padding) of one axis."""
    small = st.integers(1, 5)
    sides = st.tuples(st.integers(0, 3), st.integers(0, 3))
    found = st.tuples(small, small, st.integers(1, 4), sides, st.integers(1, 3), st.integers(0, 3))
    return found.filter(_makes_pixels)


def _makes_pixels(axis: Any) -> bool:
    image, kernel, stride, sides, dilation, extra = axis
    out = (image - 1) * stride + dilation * (kernel - 1) + 1 - sum(sides) + extra
    return out >= 1 and extra < stride


@settings(max_examples=25, deadline=None)
@given(axes(), axes(), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2))
def test_outputs_stay_the_same(rows, columns, channels_in, channels, batch):
    (h, kh, sh, ph, dh, eh), (w, kw, sw, pw, dw, ew) = rows, columns

    def build(emit: Emit, x: Any) -> Any:
        weight = const(channels_in, channels, kh, kw)
        padding = (ph[0], pw[0], ph[1], pw[1])
        return emit(nn.conv2d_transpose(x, weight, (sh, sw), padding, (eh, ew), (dh, dw)), "layer")

    check(graph(build, x=(batch, channels_in, h, w)))


@pytest.mark.parametrize(
    ("kernel", "padding", "extra", "taps", "crop"),
    [(2, 0, 0, 1, 0), (3, 1, 1, 2, 0), (4, 1, 0, 2, 1), (5, 2, 1, 3, 0), (3, 0, 0, 2, 0)],
)
def test_phases_have_as_few_taps_as_can_be(kernel, padding, extra, taps, crop):
    """At stride 2, the usual ways to double an image: ceil(kernel / 2) taps for each phase."""
    axis = phase_axis(8, kernel, 2, padding, 1, 7 * 2 + kernel - 2 * padding + extra)
    assert (len(axis.taps[0]), axis.crop) == (taps, crop)
    assert sorted(k for phase in axis.taps for k in phase if k >= 0) == list(range(kernel))


def _layer(emit: Emit, x: Any, extra: int = 1) -> Any:
    weight = const(3, 4, 3, 3)
    return emit(nn.conv2d_transpose(x, weight, (2, 2), (1, 1, 1, 1), (extra, extra)), "layer")


def test_bias_batch_norm_and_clamp_are_folded():
    def build(emit: Emit, x: Any) -> Any:
        y = emit(op.add(_layer(emit, x), const(1, 4, 1, 1, seed=1)), "bias")
        return emit(op.clip(batch_norm(emit, y, 4), 0, 1), "clamp")

    mod = graph(build, x=(1, 3, 5, 4))
    after = check(mod)
    fused = FuseConvRelu()(FoldBatchNorm()(after))
    called = [v for _, v in bindings(fused["main"]) if not op_name(v) and hasattr(v, "op")]
    moved = [op_name(v) for _, v in bindings(fused["main"]) if op_name(v)]
    assert len(called) == 1
    assert moved == ["reshape", "permute_dims", "reshape"]
    assert next(str(var.name) for var, _ in bindings(fused["main"])) == "layer"
    for (a,), (b,) in zip(run(mod, samples(mod)), run(fused, samples(mod)), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 4, 10, 8), (1, 1, 10, 8), (4, 10, 1)])
def test_an_addition_that_is_no_bias_comes_behind(shape):
    after = check(graph(lambda emit, x: emit(op.add(_layer(emit, x), const(*shape))), x=(1, 3, 5, 4)))
    assert operators(after) == ["nn.conv2d", "reshape", "permute_dims", "reshape", "add"]


def test_what_others_read_too_is_not_moved():
    def build(emit: Emit, x: Any) -> Any:
        y = _layer(emit, x)
        return emit(op.multiply(emit(nn.relu(y), "relu"), y), "product")

    after = check(graph(build, x=(1, 3, 5, 4)))
    assert operators(after) == ["nn.conv2d", "reshape", "permute_dims", "reshape", "nn.relu", "multiply"]


def test_the_crop_comes_last():
    after = check(graph(lambda emit, x: emit(nn.relu(_layer(emit, x, 0)), "relu"), x=(1, 3, 5, 4)))
    names = ["nn.conv2d", "nn.relu", "reshape", "permute_dims", "reshape", "strided_slice"]
    assert operators(after) == names


@settings(max_examples=10, deadline=None)
@given(axes(), axes(), st.integers(2, 3), st.integers(1, 2), st.integers(1, 3))
def test_groups(rows, columns, groups, depth, channels):
    (h, kh, sh, ph, dh, eh), (w, kw, sw, pw, dw, ew) = rows, columns

    def build(emit: Emit, x: Any) -> Any:
        weight, padding = const(groups * depth, channels, kh, kw), (ph[0], pw[0], ph[1], pw[1])
        attributes = {"dilation": (dh, dw), "groups": groups}
        y = emit(nn.conv2d_transpose(x, weight, (sh, sw), padding, (eh, ew), **attributes), "layer")
        return emit(op.add(y, const(1, groups * channels, 1, 1, seed=1)))

    check(graph(build, x=(2, groups * depth, h, w)))


def test_a_weight_that_is_computed_stays():
    mod = graph(
        lambda emit, x, w: emit(nn.conv2d_transpose(x, w, (2, 2)), "layer"), x=(1, 3, 5, 4), w=(3, 2, 2, 2)
    )
    after = apply(LowerConvTranspose(), mod)
    assert operators(after) == ["nn.conv2d_transpose"]
    reason = "the weight of this transposed convolution is no constant, nor codes by output channel"
    assert float_reasons(after["main"]) == {"layer": reason}
    assert shape_of(bindings(after["main"])[0][0]) == (1, 2, 10, 8)


def test_other_modules_stay_the_same():
    mod = graph(lambda emit, x: emit(nn.conv2d(x, const(4, 3, 3, 3)), "layer"), x=(1, 3, 5, 4))
    assert same(apply(LowerConvTranspose(), mod), mod)
