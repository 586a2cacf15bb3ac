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
    ROUNDINGS,
    STEPS,
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


def _nearest(value: Fraction, rounding: str) -> int:
    """The nearest whole number, of two the one that a rounding takes."""
    below = value.numerator // value.denominator
    rest = value - below
    if rest != HALF:
        return below + (rest > HALF)
    up = {"half-up": True, "half-away": value > 0, "half-even": below % 2 == 1}[rounding]
    return below + up


@given(accumulators, multipliers, shifts, st.sampled_from(["half-up", "half-away", "half-even"]))
@example(3, 2**30, 1, "half-even")
@example(-3, 2**30, 1, "half-away")
@example(-6, 2**30, 2, "half-up")
def test_one_rounding_is_that_of_the_exact_product(acc, multiplier, shift, rounding):
    expected = min(max(_nearest(acc * value(multiplier, shift), rounding), -128), 127)
    assert requantize(np.array(acc), multiplier, shift, 0, -128, 127, rounding=rounding) == expected


@given(accumulators, multipliers, shifts)
@example(-1, 2**30, 1)
def test_double_rounding_is_what_tosa_defines(acc, multiplier, shift):
    """RESCALE's apply_scale_32 with double rounding, of the TOSA specification."""
    by = shift + 31
    total = 1 << (by - 1)
    total += (1 << 30) if acc >= 0 else -(1 << 30)
    expected = min(max((acc * multiplier + total) >> by, -128), 127)
    assert requantize(np.array(acc), multiplier, shift, 0, -128, 127, rounding="double") == expected


@given(st.integers(-(2**24), 2**24), st.integers(1, 20))
def test_a_power_of_two_is_a_shift_of_the_sum(acc, shift):
    """What chips with such scales do; by steps it is not: 2^s - 1 would be rounded twice."""
    half_up = requantize(np.array(acc), 2**30, shift, 0, -(2**15), 2**15 - 1, "int16", "half-up")
    assert half_up == np.clip((acc + (1 << shift)) >> (shift + 1), -(2**15), 2**15 - 1)
    assert requantize(np.array(3), 2**30, 2, 0, -128, 127, rounding=STEPS) == 1
    assert requantize(np.array(3), 2**30, 2, 0, -128, 127, rounding="half-up") == 0


def test_all_roundings_are_known():
    results = {
        r: requantize(np.array([-12, -4, 3, 4, 12]), 2**30, 2, 0, -128, 127, rounding=r) for r in ROUNDINGS
    }
    assert {r: list(v) for r, v in results.items()} == {
        "steps": [-1, 0, 1, 1, 2],
        "half-up": [-1, 0, 0, 1, 2],
        "half-away": [-2, -1, 0, 1, 2],
        "half-even": [-2, 0, 0, 0, 2],
        "double": [-2, -1, 1, 1, 2],
    }
