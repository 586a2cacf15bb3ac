"""Targets behind a clamp: the error towards them bounds the one that counts, and equals it inside."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hwptq.quant.clamped_target import clamped_target

reals = hnp.arrays(np.float64, 40, elements=st.floats(-10, 10))
bounds = st.sampled_from([(0.0, 6.0), (0.0, np.inf), (-np.inf, np.inf), (-1.0, 1.0)])


@given(reals, reals, reals, bounds)
def test_the_error_towards_the_target_bounds_the_error_behind_the_clamp(y, now, other, limits):
    target = clamped_target(y, now, *limits)

    def counts(z):
        return np.square(np.clip(z, *limits) - np.clip(y, *limits))

    for z in (now, other):
        assert np.all(np.square(z - target) >= counts(z) - 1e-9)
    assert np.all(np.abs(now - target) <= np.abs(now - y) + 1e-9)
    inside = (now >= limits[0]) & (now <= limits[1])
    np.testing.assert_allclose(np.square(now - target)[inside], counts(now)[inside], atol=1e-9)


def test_relu():
    found = clamped_target(np.array([-1.0, -1.0, 2.0]), np.array([-3.0, 1.0, -1.0]), 0.0, np.inf)
    np.testing.assert_array_equal(found, [-3.0, 0.0, 2.0])


def test_without_a_clamp_the_target_is_the_float_result():
    y, z = np.array([-1.0, 3.0]), np.array([5.0, -5.0])
    np.testing.assert_array_equal(clamped_target(y, z, -np.inf, np.inf), y)
