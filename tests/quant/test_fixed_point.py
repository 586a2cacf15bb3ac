"""Fixed-point requantization against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hwptq.quant.fixed_point import (
    ACCUMULATOR_LIMIT,
    MAX_SHIFT,
    quantize_multiplier,
    requantize,
    shortened,
    shortening,
)

HALF = Fraction(1, 2)
reals = st.floats(2.0**-32, 0.5, exclude_max=True).filter(lambda r: r < 0.5 - 2.0**-33)
accumulators = st.integers(-ACCUMULATOR_LIMIT, ACCUMULATOR_LIMIT)
multipliers = st.integers(2**30, 2**31 - 1)
shifts = st.integers(1, MAX_SHIFT)


def value(multiplier: int, shift: int) -> Fraction:
    """The real number that a pair stands for."""
    return Fraction(int(multiplier), 2 ** (31 + int(shift)))


@given(reals)
@example(0.25)
@example(2.0**-32)
@example(np.nextafter(0.25, 0))
def test_multiplier_is_the_nearest(real):
    multiplier, shift = quantize_multiplier(np.array(real))
    assert 2**30 <= multiplier < 2**31
    assert 1 <= shift <= MAX_SHIFT
    assert abs(value(multiplier, shift) - Fraction(real)) <= HALF / 2 ** (31 + int(shift))


def test_multiplier_of_the_docstring():
    assert [int(v) for v in quantize_multiplier(np.array(0.3))] == [1288490189, 1]


def test_multipliers_too_small_become_the_smallest():
    multiplier, shift = quantize_multiplier(np.array([0.0, 2.0**-40, 2.0**-32]))
    assert set(multiplier) == {2**30}
    assert set(shift) == {MAX_SHIFT}


@pytest.mark.parametrize("real", [0.5, np.nextafter(0.5, 0), 7.0, -0.1, np.nan, np.inf])
def test_multiplier_outside_the_range(real):
    with pytest.raises(ValueError, match="multiplier must lie in"):
        quantize_multiplier(np.array([0.25, real]))


def one(acc: int, multiplier: int, shift: int, zero_point: int = 0, lo: int = -128, hi: int = 127) -> int:
    return int(requantize(np.array([acc]), np.array([multiplier]), np.array([shift]), zero_point, lo, hi)[0])


@given(accumulators, multipliers, shifts, st.integers(-128, 127))
def test_requantize_is_within_half_a_step(acc, multiplier, shift, zero_point):
    """Half a step of the output, and half a step of the first rounding, which is 2^shift times finer."""
    real = acc * value(multiplier, shift) + zero_point
    result = one(acc, multiplier, shift, zero_point)
    if -128 < result < 127:
        assert abs(result - real) <= HALF + HALF / 2**shift
    else:
        assert result == (-128 if real < 0 else 127)
        assert abs(real) >= abs(result) - HALF - HALF / 2**shift


@given(accumulators, multipliers, shifts)
def test_the_second_step_fits_in_32_bits(acc, multiplier, shift):
    high = (acc * multiplier + 2**30) >> 31
    assert -(2**31) <= high + 2 ** (shift - 1) < 2**31


@given(accumulators, accumulators, multipliers, shifts)
def test_requantize_is_monotone(a, b, multiplier, shift):
    low, high = sorted((a, b))
    assert one(low, multiplier, shift) <= one(high, multiplier, shift)


@given(multipliers, shifts, st.integers(-128, 127))
def test_zero_is_exact(multiplier, shift, zero_point):
    assert one(0, multiplier, shift, zero_point) == zero_point


def test_halves_round_up():
    """0.5 -> 1 and -0.5 -> 0, as SRSHL rounds."""
    assert [one(acc, 2**30, 1) for acc in (-6, -2, 2, 6)] == [-1, 0, 1, 2]


@given(st.integers(0, 2**32 - 1), st.sampled_from(((-128, 127), (-128, -1), (0, 90), (5, 5))))
def test_channels_are_on_the_last_axis(seed, bounds):
    rng = np.random.default_rng(seed)
    acc = rng.integers(-(2**20), 2**20, (2, 3, 5))
    multiplier, shift = rng.integers(2**30, 2**31, 5), rng.integers(1, 20, 5)
    result = requantize(acc, multiplier, shift, 3, *bounds)
    assert result.dtype == np.int8
    for i in np.ndindex(acc.shape):
        assert result[i] == one(acc[i], multiplier[i[-1]], shift[i[-1]], 3, *bounds)


@pytest.mark.parametrize("acc", [ACCUMULATOR_LIMIT + 1, -ACCUMULATOR_LIMIT - 1])
def test_accumulators_beyond_the_limit_are_refused(acc):
    assert one(np.sign(acc) * ACCUMULATOR_LIMIT, 2**30, 1) == (127 if acc > 0 else -128)
    with pytest.raises(ValueError, match="accumulator exceeds"):
        one(acc, 2**30, 1)


@given(st.integers(0, 2**52).map(lambda most: most + 1), st.data())
def test_long_sums_are_shortened_to_fit(most, data):
    by = shortening(float(most))
    acc = np.array(data.draw(st.lists(st.integers(-most, most), min_size=1)))
    short = shortened(acc, by)
    assert by == 0 or most > ACCUMULATOR_LIMIT
    assert abs(short).max() <= ACCUMULATOR_LIMIT
    for before, after in zip(acc.tolist(), short.tolist(), strict=True):
        assert abs(after - Fraction(before, 2**by)) <= HALF


def test_codes_of_16_bits():
    acc, (multiplier, shift) = np.array([-(2**29), 0, 2**28 + 5]), quantize_multiplier(np.array(2.0**-14))
    found = requantize(acc, multiplier, shift, 0, -32768, 32767, "int16")
    assert found.dtype == np.int16
    assert found.tolist() == [-32768, 0, 16384]
