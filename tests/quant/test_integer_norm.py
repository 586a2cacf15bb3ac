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
    halvings,
    integer_sqrt,
    norm_constants,
    normalize,
    row_multiplier,
    variance_of,
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
    with pytest.raises(ValueError, match="a norm of rows of 4194305 values"):
        normalize(
            np.zeros((1, gamma.size), np.int16), norm_constants(gamma, gamma, EPS, 1.0, 1.0), 0, -128, 127
        )


def test_what_fits_no_shift_is_refused() -> None:
    with pytest.raises(ValueError, match="too large for its output's scale"):
        norm_constants(np.ones(4), np.full(4, 1e12), EPS, 1.0, 1e-3)


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("count", [40_000, LONGEST])
@pytest.mark.parametrize("kind", ["one", "halves", "steps"])
def test_long_rows(dtype: type, count: int, kind: str) -> None:
    """One value that sticks out, which is the largest that can be; values at both limits; next to none, of
    which a long row of int16 loses what the division of V does."""
    limits, odd = np.iinfo(dtype), np.arange(count) % 2
    rows = {
        "one": np.where(np.arange(count), 0, limits.min),
        "halves": np.where(odd, limits.min, limits.max),
        "steps": odd,
    }
    x = rows[kind].astype(dtype)[None]
    ones, halved, out_scale = np.ones(1), halvings(count, dtype), 2.0**-10
    constants = norm_constants(ones, 0 * ones, EPS, 0.01, out_scale, count, halved)
    found = normalize(x, constants, 0, -WIDE, WIDE)
    exact = real_norm(x, 0.01, ones, 0 * ones, True) / out_scale
    lost = 4.0**halved / (count * float(x.var()))
    assert lost < 0.07
    assert (np.abs(found - exact) <= 1 + (2.0**-12 + lost) * np.abs(exact)).all()


@pytest.mark.parametrize("count", [2**14 + 1, 100_003])
def test_a_long_row_without_spread_is_its_offset(count: int) -> None:
    x = np.full((2, count), [[-(2**15)], [7]], np.int16)
    constants = norm_constants(np.ones(1), np.ones(1), 0.0, 0.01, 0.1, count, halvings(count, np.int16))
    assert (normalize(x, constants, 0, -WIDE, WIDE) == 10).all()


@given(st.integers(2**14 + 1, LONGEST), st.integers(0, 2**32 - 1))
def test_n_of_long_rows_fits(count: int, seed: int) -> None:
    """What sums of any rows of int16 give stays below 2^60, and the largest n below 2^28."""
    rng, halved = np.random.default_rng(seed), halvings(count, np.int16)
    total = int(rng.integers(-count, count + 1)) * 2**15
    least = -(-total * total // count)
    squares = int(rng.integers(least, count * 2**30 + 1)) if rng.random() < 0.7 else least
    variance = variance_of(np.array([total]), np.array([squares]), count, halved)
    assert 0 < variance[0] < 2**60
    assert int(variance[0]) == count * max((squares - total * total // count) >> 2 * halved, 1)
    multiplier, shift, lift = row_multiplier(variance, count, fraction_bits(np.int16), halved)
    farthest = min(np.sqrt(float(squares - total * total // count) + 1), 2**16)
    farthest *= 2.0 ** fraction_bits(np.int16)
    assert farthest * 2.0 ** lift[0] < 2**31
    assert farthest * 2.0 ** (lift[0] - shift[0] - 31) * multiplier[0] < 2**28
