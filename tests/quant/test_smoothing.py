"""Smoothing: outliers move where that loses less in integers, and stay where it does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwptq.quant.smoothing import Product, best_factors, factors


def product(seed: int, outlier: float) -> Product:
    """Rows of even channels, but for one."""
    rng = np.random.default_rng(seed)
    rows = rng.uniform(-1, 1, (64, 16)).astype(np.float32)
    rows[0], rows[1] = 1, -1  # all channels reach as far
    rows[:, 3] *= outlier
    weight = np.sign(rng.uniform(-1, 1, (16, 8))).astype(np.float32)
    return Product(rows, rows.min(axis=0), rows.max(axis=0), weight)


def best(found: Product, per_token: bool = False) -> np.ndarray:
    reach, at = np.maximum(-found.low, found.high), np.arange(16)
    return best_factors(reach, np.abs(found.weight).max(axis=1), [(found, at)], per_token)


@given(st.integers(0, 1000), st.booleans())
def test_flat_channels_are_left_alone(seed, per_token):
    assert np.array_equal(best(product(seed, 1.0), per_token), np.ones(16))


@pytest.mark.parametrize("per_token", [False, True])
def test_an_outlier_moves_into_the_weights(per_token):
    found = product(1, 100.0)
    s = best(found, per_token)
    assert s[3] == s.max() > 4 * np.median(s)
    assert found.error(s, per_token, 127) < 0.2 * found.error(np.ones(16), per_token, 127)


def test_dead_channels_stay():
    s = factors(np.array([0.0, 1, 2]), np.array([1.0, 0, 2]), 0.5)
    assert list(s[:2]) == [1, 1]


def test_nothing_alive():
    assert np.array_equal(factors(np.zeros(3), np.zeros(3), 0.5), np.ones(3))


def test_several_inputs_may_hold_one_channel():
    """As the heads of grouped queries share values: the factor is that of the channel."""
    found = product(2, 100.0)
    rows, low, high = (np.hstack([v] * 2) for v in (found.rows, found.low, found.high))
    twice = Product(rows, low, high, np.vstack([found.weight] * 2))
    reach, largest = np.maximum(-found.low, found.high), np.abs(found.weight).max(axis=1)
    s = best_factors(reach, largest, [(twice, np.tile(np.arange(16), 2))])
    np.testing.assert_allclose(s, best(found))
