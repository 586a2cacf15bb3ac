"""The short form of an Add equals its definition for every pair of operands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwptq.operators.add import Add
from hwptq.quant.short_add import ShortAdd, short_add

A, B = (v.reshape(-1) for v in np.meshgrid(*[np.arange(-128, 128, dtype=np.int64)] * 2, indexing="ij"))
zero_points = st.sampled_from((-128, -100, -3, 0, 7, 127))
factors = st.one_of(st.just(2**20), st.integers(2**14, 2**20), st.integers(-(2**20), -(2**18)))
adds = st.builds(
    Add, zero_points, zero_points, factors, factors, st.integers(2**30, 2**31 - 1), st.integers(18, 23),
    zero_points, st.sampled_from((-128, -20)), st.sampled_from((127, 90)),
)  # fmt: skip


def evaluated(op: Add, short: ShortAdd, a_offset: int, b_offset: int) -> np.ndarray:
    """The short form, in int32: an overflow is an error."""
    parts = [(A + a_offset) * short.a_factor]
    parts.append(parts[-1] + short.start)
    parts.append(parts[-1] + (B + b_offset) * short.b_factor)
    assert all(np.array_equal(part, part.astype(np.int32)) for part in parts)
    return np.clip((parts[-1] >> short.shift) + op.out_zero_point, op.lo, op.hi)


@settings(max_examples=60, deadline=None)
@given(adds, st.sampled_from((0, 128)), st.sampled_from((0, 128)))
def test_it_equals_the_definition_for_all_operands(op: Add, a_offset: int, b_offset: int):
    short = short_add(op, a_offset, b_offset)
    if short is not None:
        expected = op.reference(A.astype(np.int8), B.astype(np.int8))
        np.testing.assert_array_equal(evaluated(op, short, a_offset, b_offset), expected)


@pytest.mark.parametrize("offsets", [(0, 0), (0, 128), (128, 0)])
def test_it_exists_for_usual_scales(offsets: tuple[int, int]):
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(50):
        op = Add(
            *(int(z) for z in rng.integers(-128, 128, 2)), 2**20, int(rng.integers(2**18, 2**20)),
            int(rng.integers(2**30, 2**31)), 21, int(rng.integers(-128, 1)), -128, 127,
        )  # fmt: skip
        found += short_add(op, *offsets) is not None
    assert found >= 48
