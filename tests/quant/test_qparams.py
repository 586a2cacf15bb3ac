"""Scales and zero points: ranges are covered, zero is exact, and rounding loses at most half a step."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hwptq.formats import INT4, INT8
from hwptq.operators.dequantize import Dequantize
from hwptq.operators.quantize import Quantize
from hwptq.quant.qparams import activation_qparams, quantize_weight, weight_scales

#: Half a step, and what a float32 division of at most 2^8 steps rounds.
HALF_STEP = 0.5 + 2.0**-15
finite = st.floats(-1e6, 1e6, width=32)
dtypes = st.sampled_from((INT8, INT4))
weights = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=4, max_side=5),
    elements=st.floats(-8, 8, width=32, allow_subnormal=False),
)


def test_activation_of_the_docstring():
    q = activation_qparams(0, 2.55)
    assert (q.scale, q.zero_point) == (np.float32(0.01), -128)


@given(finite, finite, dtypes)
@example(0.0, 0.0, INT8)
@example(3.0, 3.0, INT4)
@example(-1e-30, 1e-30, INT8)
def test_zero_is_exact(a, b, dtype):
    q = activation_qparams(min(a, b), max(a, b), dtype=dtype)
    assert dtype.qmin <= q.zero_point <= dtype.qmax
    assert np.float32(q.scale) == q.scale > 0
    zero = Quantize(q.scale, q.zero_point).reference(np.zeros(1, np.float32))
    assert Dequantize(q.scale, q.zero_point).reference(zero)[0] == 0


@given(finite, finite, st.floats(0, 1), dtypes)
def test_round_trip_inside_the_range_is_within_half_a_step(a, b, part, dtype):
    low, high = min(a, b), max(a, b)
    q = activation_qparams(low, high, dtype=dtype)
    x = np.float32(low + part * (high - low))
    clipped = np.clip(x, *q.bounds).astype(np.float32)
    ints = Quantize(q.scale, q.zero_point).reference(clipped)
    assert dtype.qmin <= ints <= dtype.qmax
    back = Dequantize(q.scale, q.zero_point).reference(ints)
    assert abs(float(back) - float(x)) <= HALF_STEP * q.scale


@given(finite, finite, st.floats(2.0**-20, 2.0**10))
def test_a_scale_has_a_floor(a, b, floor):
    q = activation_qparams(min(a, b), max(a, b), floor)
    assert q.scale >= np.float32(floor)
    low, high = q.bounds
    assert low <= 0 <= high


@given(weights, st.integers(0, 3), dtypes)
def test_weights_per_channel(weight, axis, dtype):
    assume(axis < weight.ndim)
    scale = weight_scales(weight, axis, dtype=dtype)
    values = quantize_weight(weight, scale, axis, dtype)
    assert scale.shape == (weight.shape[axis],)
    assert (scale.dtype, values.dtype) == (np.float32, np.int8)
    for w, q, s in zip(np.moveaxis(weight, axis, 0), np.moveaxis(values, axis, 0), scale, strict=True):
        assert np.all(np.abs(q.astype(int)) <= dtype.qmax)
        assert np.all(np.abs(q * np.float64(s) - w) <= HALF_STEP * np.float64(s))
        assert np.all(q[w == 0] == 0)
        assert not w.any() or np.abs(w).max() < 2e-10 or np.abs(q).max() == dtype.qmax


@given(weights, dtypes)
def test_weights_per_tensor(weight, dtype):
    scale = weight_scales(weight, None, dtype=dtype)
    assert scale.shape == (1,)
    error = np.abs(quantize_weight(weight, scale, None, dtype) * np.float64(scale[0]) - weight)
    assert error.max() <= HALF_STEP * scale[0]


def test_a_bias_raises_the_scale_of_its_channel():
    weight = np.array([[0.127, -0.01], [1.27, 0.5], [0, 0]], np.float32)
    limits = np.array([0.25, 1e-6, 1e-6])
    np.testing.assert_allclose(weight_scales(weight, 0, limits), [0.25, 0.01, 1.0], rtol=1e-7)
    np.testing.assert_array_equal(weight_scales(weight, None, limits), np.float32([0.25]))
