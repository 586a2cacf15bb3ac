"""Latent rows: as given they are the rows they came from; steps against a gradient make a loss smaller."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwptq.formats import format_of
from hwptq.quant.adam import Adam
from hwptq.quant.group_codes import group_values
from hwptq.quant.group_rounding import nearest_rows
from hwptq.quant.latent_rows import LatentRows

WEIGHTS = ("int4", "int3", "int2", "levels_1_3", "levels_1_4")


def target(seed: int, rows: int, depth: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, depth)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(WEIGHTS), st.integers(0, 99), st.integers(9, 50), st.sampled_from([8, 16, 32]))
def test_without_a_step_the_rows_stay(weight: str, seed: int, depth: int, size: int) -> None:
    real = target(seed, 5, depth)
    rows = nearest_rows(real, format_of(weight), size)
    found = LatentRows(rows, target(seed + 100, 5, depth)).settle()  # whatever the numbers are to be near to
    for a, b in zip(rows.arrays, found.arrays, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_what_settles_is_what_the_last_forward_multiplies(weight: str) -> None:
    real, x = target(1, 6, 40), target(2, 30, 40)
    latent = LatentRows(nearest_rows(real, format_of(weight), 8), real)
    for _ in range(5):
        latent.backward(x, latent.forward(x) - x @ real.T)
        latent.step(1.0, keep=True)
    rows = latent.settle()
    packed = group_values(rows.codes, rows.scales, rows.zeros, rows.weight, rows.size, rows.depth)
    np.testing.assert_array_equal(packed, latent.values)


@pytest.mark.parametrize("weight", ["int3", "levels_1_3"])
def test_steps_make_the_error_of_correlated_inputs_smaller(weight: str) -> None:
    real = target(1, 12, 48)
    x = target(2, 400, 12) @ target(3, 12, 48) + np.float32(0.3) * target(4, 400, 48)
    latent = LatentRows(nearest_rows(real, format_of(weight), 16), real)

    def error() -> np.ndarray:
        return latent.forward(x) - x @ real.T

    before = np.square(error()).mean()
    for number in range(100):
        latent.backward(x, error())
        latent.step(1 - number / 100, keep=number >= 50)
    latent.settle()
    assert np.square(error()).mean() < 0.5 * before


def test_adam_goes_to_the_least_and_its_mean_is_of_what_was_kept() -> None:
    value, seen = np.zeros(3, np.float32), []
    adam = Adam(value, 0.05)
    for number in range(200):
        adam.step(2 * (value - np.float32([1, -2, 0.5])), 1.0, keep=number >= 150)
        seen.append(value.copy())
    np.testing.assert_allclose(value, [1, -2, 0.5], atol=0.05)
    adam.settle()
    np.testing.assert_allclose(value, np.mean(seen[150:], axis=0), rtol=1e-5)
