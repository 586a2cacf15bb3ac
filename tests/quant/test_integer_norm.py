"""Norms in integers against real arithmetic, and within the widths they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwptq.quant.integer_norm import (
    LONGEST,
    bit_length,
    fraction_bits,
    integer_sqrt,
    longest,
    norm_constants,
    normalize,
    row_multiplier,
)

EPS, WIDE = 1e-5, 2**30
dtypes = st.sampled_from([np.int8, np.int16])
rows = dtypes.flatmap(lambda dtype: arrays(dtype, st.tuples(st.integers(1, 3), st.integers(2, 50))))
wide = st.integers(0, 2**62 - 1)


def real_norm(x: np.ndarray, scale: float, gamma: np.ndarray, beta: np.ndarray, centered: bool) -> np.ndarray:
    real = x.astype(np.float64) * scale
    real = real - real.mean(axis=-1, keepdims=True) if centered else real
    return real / np.sqrt((real * real).mean(axis=-1, keepdims=True) + EPS) * gamma + beta


@given(
    rows, st.floats(2.0**-12, 1.0), st.sampled_from([2.0**-5, 2.0**-11]), st.booleans(), st.integers(0, 99)
)
def test_it_is_a_norm(x: np.ndarray, scale: float, out_scale: float, centered: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gamma, beta = rng.normal(size=(2, x.shape[-1]))
    constants = norm_constants(gamma, beta, EPS, scale, out_scale)
    found = normalize(x, constants, 0, -WIDE, WIDE, centered)
    exact = real_norm(x, scale, gamma, beta, centered) / out_scale
    # one rounding, and what the mean and the reciprocal of the root lose, which eps in whole steps adds to
    allowed = 0.51 + 2.0**-12 * np.abs(exact - beta / out_scale) + 2.0**-12 / out_scale
    variance = (x.astype(float) - x.mean(axis=-1, keepdims=True) * centered).var(axis=-1, keepdims=True)
    steps = np.maximum(variance * x.shape[-1] ** 2, 1)
    assert (np.abs(found - exact) <= allowed + np.abs(exact - beta / out_scale) / steps).all()


@given(rows, st.booleans())
def test_32_bits_suffice(x: np.ndarray, centered: bool) -> None:
    """d, also after its shift to the left, and n: for any values."""
    count, bits, big = x.shape[-1], fraction_bits(x.dtype), x.astype(object)
    total = big.sum(axis=-1, keepdims=True) * centered
    variance = (count * (big * big).sum(axis=-1, keepdims=True) - total * total).astype(np.int64)
    multiplier, shift, lift = row_multiplier(variance, count, bits)
    d = (big * 2**bits - (total * 2 ** (bits + 1) + count) // (2 * count)) * 2 ** lift.astype(object)
    assert np.abs(d).max() < 2**30
    assert ((multiplier >= 2**30) & (multiplier < 2**31)).all()
    n = (d * multiplier.astype(object) + 2**30) // 2**31 // 2 ** shift.astype(object)
    assert np.abs(n).max() <= 2**16 * np.sqrt(count) + 2


def test_the_widest_values() -> None:
    for dtype in (np.int8, np.int16):
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        x = np.full((1, 1024), low, dtype)
        x[0, ::2] = high
        gamma = np.ones(1024)
        constants = norm_constants(gamma, gamma * 0, EPS, 1.0, 2.0**-10)
        assert (np.abs(normalize(x, constants, 0, -WIDE, WIDE)) == 1024).all()


def test_equal_values_have_no_spread() -> None:
    gamma, beta = np.ones(8), np.full(8, 0.5)
    constants = norm_constants(gamma, beta, EPS, 0.1, 0.25)
    assert (normalize(np.full((2, 8), 77, np.int16), constants, 3, -128, 127) == 5).all()


@given(wide)
def test_square_roots_are_exact(x: int) -> None:
    root = int(integer_sqrt(np.array(x)))
    assert root * root <= x < (root + 1) ** 2


@given(st.integers(1, 2**62))
def test_bit_lengths_are_exact(x: int) -> None:
    assert int(bit_length(np.array(x))) == x.bit_length()


def test_a_row_that_is_too_long_is_refused() -> None:
    gamma = np.ones(LONGEST + 1)
    with pytest.raises(ValueError, match="a norm of rows of 16385 values"):
        normalize(
            np.zeros((1, gamma.size), np.int16), norm_constants(gamma, gamma, EPS, 1.0, 1.0), 0, -128, 127
        )


def test_what_fits_no_shift_is_refused() -> None:
    with pytest.raises(ValueError, match="too large for its output's scale"):
        norm_constants(np.ones(4), np.full(4, 1e12), EPS, 1.0, 1e-3)


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("kind", ["one", "halves", "two steps"])
def test_the_longest_rows(dtype: type, kind: str) -> None:
    """One value that sticks out, which is the largest that can be; values at both limits; next to none."""
    count, limits = longest(dtype), np.iinfo(dtype)
    x = np.zeros((1, count), dtype)
    x[0, 0] = limits.min if kind == "one" else 1
    if kind == "halves":
        x[0] = np.where(np.arange(count) % 2, limits.min, limits.max)
    out_scale = 2.0**-10
    constants = norm_constants(np.ones(count), np.zeros(count), EPS, 0.01, out_scale)
    found = normalize(x, constants, 0, -WIDE, WIDE)
    exact = real_norm(x, 0.01, np.ones(1), np.zeros(1), True) / out_scale
    assert (np.abs(found - exact) <= 1 + 2.0**-12 * np.abs(exact)).all()
