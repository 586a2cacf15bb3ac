"""The fp8 operators: one rounding where the definition says one, and plain loops as the second opinion."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwptq.formats import fp8
from hwptq.operators.add import FloatAdd
from hwptq.operators.avg_pool import FloatAvgPool
from hwptq.operators.conv2d import FloatConv2d
from hwptq.operators.lookup import Lookup
from hwptq.operators.matmul import FloatMatMul
from hwptq.operators.max_pool import MaxPool
from hwptq.operators.mul import FloatMul
from hwptq.operators.pad import Pad
from hwptq.quant.float_values import clamp
from hwptq.quant.fma import fma
from hwptq.quant.fp8_accumulate import Accumulator, product

INFINITY = float("inf")
MODEL = (32, 13, 128)
finite = st.floats(-1e10, 1e10, width=32)


def to_float32(x: Fraction) -> np.float32:
    """The nearest float32, ties to even, by comparing the two candidates exactly."""
    near = np.float32(float(x))
    candidates = [near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))]
    distance = [abs(Fraction(float(c)) - x) for c in candidates]
    best = [c for c, d in zip(candidates, distance, strict=True) if d == min(distance)]
    return min(best, key=lambda c: int(np.asarray(c).view(np.uint32)) & 1)


@given(finite, finite, finite)
def test_fma_rounds_once(a: float, b: float, c: float) -> None:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    found = fma(*(np.array([v], np.float32) for v in (a, b, c)))[0]
    assert found == to_float32(exact)


def test_fma_where_two_roundings_differ() -> None:
    """a * b + c lies just above a tie of float32 and, in float64, exactly on it."""
    a, b = np.float32(1 + 2**-12), np.float32(1 + 2**-12)  # 1 + 2^-11 + 2^-24: half a float32 step
    c = np.float32(2**-80)
    twice = np.float32(np.float64(a) * np.float64(b) + np.float64(c))
    assert fma(*(np.array([v]) for v in (a, b, c)))[0] == np.nextafter(twice, np.float32(2))


def test_clamp_and_what_is_no_number() -> None:
    y = np.array([-2, -0.0, 3, np.nan], np.float32)
    assert np.array_equal(clamp(y, -INFINITY, INFINITY), y, equal_nan=True)
    assert clamp(y, 0, 1).tolist() == [0, 0, 1, 0]
    assert not np.signbit(clamp(y, 0, 1)).any()


def codes(seed: int, *shape: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return fp8.as_float8(fp8.encode(x))


def floats(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.01, 0.3, count).astype(np.float32)


@pytest.mark.parametrize(
    ("channels", "size", "stride", "padding", "dilation"),
    [(3, 3, 1, 1, 1), (16, 1, 2, 0, 1), (40, 3, 2, 1, 1), (8, 2, 1, 0, 2)],
)
def test_conv2d_is_a_product_of_padded_taps(
    channels: int, size: int, stride: int, padding: int, dilation: int
) -> None:
    x, w = codes(1, 2, 7, 6, channels), codes(2, 5, size, size, channels)
    scale, bias, r = floats(3, 5), floats(4, 5), codes(5, 1)[0]
    op = FloatConv2d(
        (stride,) * 2, (padding,) * 4, (dilation,) * 2, 1, 0.0, INFINITY, fp8.DTYPE, MODEL, 0.7
    )  # fmt: skip
    out = [(n + 2 * padding - dilation * (size - 1) - 1) // stride + 1 for n in (7, 6)]
    residual = np.broadcast_to(r, (2, *out, 5))
    found = fp8.as_codes(op.reference(x, residual, w, scale, bias))
    filled = -(-channels // 32) * 32
    padded = np.pad(fp8.as_codes(x), ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows = np.pad(fp8.as_codes(w), ((0, 0), (0, 0), (0, 0), (0, filled - channels))).reshape(5, -1)
    for n, y, z in np.ndindex(2, *out):
        taps = [
            padded[n, y * stride + i * dilation, z * stride + j * dilation] for i, j in np.ndindex(size, size)
        ]
        row = np.pad(taps, ((0, 0), (0, filled - channels))).reshape(1, -1)
        value = fma(product(row, rows, Accumulator(*MODEL))[0], scale, bias)
        value = fma(np.full(5, r, np.float32), np.full(5, 0.7, np.float32), value)
        assert np.array_equal(found[n, y, z], fp8.encode(clamp(value, 0.0, INFINITY)))


def test_a_grouped_conv2d_sums_in_float32() -> None:
    x, w, scale, bias = codes(1, 1, 5, 5, 6), codes(2, 6, 3, 3, 2), floats(3, 6), floats(4, 6)
    op = FloatConv2d((1, 1), (1, 1, 1, 1), (1, 1), 3, -INFINITY, INFINITY, "float32", MODEL)
    found = op.reference(x, w, scale, bias)
    real, weight = np.pad(x.astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0))), w.astype(np.float32)
    for y, z, o in np.ndindex(5, 5, 6):
        acc = np.float32(0)
        for i, j, k in np.ndindex(3, 3, 2):
            acc = np.float32(acc + real[0, y + i, z + j, o // 2 * 2 + k] * weight[o, i, j, k])
        assert found[0, y, z, o] == fma(acc.reshape(1), scale[o : o + 1], bias[o : o + 1])[0]


def test_products_of_activations() -> None:
    a, b = codes(1, 2, 3, 40), codes(2, 2, 40, 4)
    op = FloatMatMul(0.25, -INFINITY, INFINITY, "float32", MODEL)
    for i in range(2):
        expected = product(fp8.as_codes(a[i]), fp8.as_codes(b[i].T), Accumulator(*MODEL)) * np.float32(0.25)
        assert np.array_equal(op.reference(a, b)[i], expected)


def test_elementwise_and_pooling() -> None:
    a, b = codes(1, 1, 4, 6, 3), codes(2, 3)
    x, y = a.astype(np.float32), b.astype(np.float32)
    add = FloatAdd(0.5, 3.0, -INFINITY, INFINITY).reference(a, b)
    assert np.array_equal(fp8.as_codes(add), fp8.encode(x * np.float32(0.5) + y * np.float32(3)))
    mul = FloatMul(0.5, 0.0, 1.0).reference(a, b)
    assert np.array_equal(fp8.as_codes(mul), fp8.encode(np.clip(x * y * np.float32(0.5), 0, 1)))
    pool = MaxPool((2, 2), (2, 2), (0, 0, 0, 0), (1, 1), (2, 3))
    windows = x.reshape(1, 2, 2, 3, 2, 3)
    assert np.array_equal(pool.reference(a).astype(np.float32), windows.max(axis=(2, 4)))
    mean = FloatAvgPool((2, 2), (2, 2), (0, 0, 0, 0), (2, 3), -INFINITY, INFINITY)
    found = mean.reference(a, np.full(6, 0.25, np.float32))
    assert np.array_equal(fp8.as_codes(found), fp8.encode(windows.mean(axis=(2, 4), dtype=np.float64)))
    table = codes(3, 256)
    assert np.array_equal(Lookup().reference(a, table), table[fp8.as_codes(a)])
    padded = Pad((0, 1), (0, 2), 0x38).reference(codes(4, 2, 2))
    assert padded[:, 0].astype(np.float32).tolist() == [1, 1]
    assert padded.shape == (2, 5)
