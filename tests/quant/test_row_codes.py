"""Codes of rows: rounded again from what a file gives back, they are the same, and others' integers stay."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwptq.quant.row_codes import row_codes

MATRICES = arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(1, 20)), elements=st.floats(-8, 8, width=32)
)


@given(MATRICES)
def test_what_comes_back_is_the_same(weight: np.ndarray) -> None:
    codes, scale = row_codes(weight)
    again = row_codes(codes * scale[:, None])
    np.testing.assert_array_equal(again[0], codes)
    np.testing.assert_array_equal(again[1], scale)


@given(MATRICES)
def test_half_a_step_at_most_is_lost(weight: np.ndarray) -> None:
    codes, scale = row_codes(weight)
    assert np.all(np.abs(weight - codes * scale[:, None]) <= scale[:, None] * (0.5 + 1e-4))


def test_integers_of_others_stay() -> None:
    """Rows that reach no ±127 steps."""
    integers = np.random.default_rng(0).integers(-90, 91, (6, 40))
    scale = np.float32(0.013) * np.arange(1, 7, dtype=np.float32)
    codes, found = row_codes((integers * scale[:, None]).astype(np.float32))
    np.testing.assert_array_equal(codes, integers)
    np.testing.assert_allclose(found, scale, rtol=1e-6)
