"""Softmax in integers against real arithmetic, and within the widths it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwptq.quant.integer_softmax import LONGEST, ONE, exponent, exponential, softmax

#: Steps of 1/256: half of one for the rounding of p, the rest for those of e and r.
ERROR = 0.6
rows = st.sampled_from([np.int8, np.int16]).flatmap(
    lambda dtype: arrays(dtype, st.tuples(st.integers(1, 3), st.integers(1, 40)))
)
scales = st.floats(2.0**-14, 0.5)
any_scales = st.floats(2.0**-40, 2.0**40)


def real_softmax(x: np.ndarray, scale: float, masked: np.ndarray) -> np.ndarray:
    """Probabilities in steps of 1/256, with those of 1 as the largest code."""
    real = np.where(masked, -np.inf, x.astype(np.float64) * scale)
    top = real.max(axis=-1, keepdims=True)
    e = np.exp(real - np.where(np.isfinite(top), top, 0))
    total = e.sum(axis=-1, keepdims=True)
    return np.minimum(256 * e / np.where(total > 0, total, 1), 255)


@given(rows, scales, st.data())
def test_it_is_softmax(x: np.ndarray, scale: float, data: st.DataObject) -> None:
    masked = data.draw(arrays(bool, x.shape))
    found = softmax(x, exponent(scale), masked).astype(int) + 128
    assert np.abs(found - real_softmax(x, scale, masked)).max() <= ERROR
    assert not found[masked].any()


@given(rows, scales, st.booleans())
def test_a_row_hidden_whole_is_zero_or_uniform(x: np.ndarray, scale: float, alike: bool) -> None:
    found = softmax(x, exponent(scale), np.ones(x.shape, bool), alike)
    equal = softmax(np.zeros(x.shape, np.int8), exponent(scale))
    np.testing.assert_array_equal(found, equal if alike else np.full_like(equal, -128))


@given(rows, scales)
def test_without_a_mask_nothing_is_hidden(x: np.ndarray, scale: float) -> None:
    by = exponent(scale)
    assert (softmax(x, by) == softmax(x, by, np.zeros(x.shape, bool))).all()


@given(st.integers(1, 4000), scales)
def test_long_rows_of_equal_values(count: int, scale: float) -> None:
    found = softmax(np.full((1, count), 7, np.int8), exponent(scale)).astype(int) + 128
    assert np.abs(found - min(256 / count, 255)).max() <= ERROR


@given(st.integers(0, 2**16 - 1), scales)
def test_exponentials_never_leave_16_bits(difference: int, scale: float) -> None:
    e = int(exponential(np.array(difference), exponent(scale)))
    assert 0 <= e <= ONE
    # two steps of the polynomial, half a one of t and of e, and what 15 bits of the factor lose
    assert abs(e - ONE * np.exp(-difference * scale)) <= 3.5


def test_exponentials_of_the_docstring() -> None:
    assert int(exponential(np.array(10), exponent(0.1))) == 12054


def test_a_row_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="softmax of rows of 65537 values"):
        softmax(np.zeros((1, LONGEST + 1), np.int8), exponent(0.1))


@given(any_scales)
def test_no_product_leaves_32_bits(scale: float) -> None:
    by = exponent(scale)
    assert 0 <= by.factor * by.reach < 2**31 - 2**29
    assert 0 <= by.shift <= 30
    assert exponential(np.array(2**16 - 1), by) <= exponential(np.array(0), by) == ONE
