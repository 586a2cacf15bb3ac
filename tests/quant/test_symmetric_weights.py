"""The integers of weights that another tool has quantized are found again in their real values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwptq.formats import INT4, INT8, Format
from hwptq.quant.symmetric_weights import on_grid, represents


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6), dtype=st.sampled_from([INT8, INT4]), channels=st.integers(1, 6),
    depth=st.integers(8, 40), axis=st.sampled_from([0, 1]), shared=st.booleans(), gain=st.booleans(),
)  # fmt: skip
def test_finds_the_integers(
    seed: int, dtype: Format, channels: int, depth: int, axis: int, shared: bool, gain: bool
) -> None:
    """Whatever the scales, also after a gain by channel as of a folded BatchNorm; all codes, and -128 too."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(int(dtype.qmin), int(dtype.qmax) + 1, (channels, depth))
    codes[:, 0], codes[:, 1] = dtype.qmax, 1  # no smaller integers are in the same proportion
    scale = 10.0 ** rng.uniform(-6, 2, 1 if shared else channels).astype(np.float32)
    weight = codes.astype(np.float32) * np.broadcast_to(scale, (channels,))[:, None].astype(np.float32)
    if gain:
        weight = weight * rng.uniform(0.1, 9, (channels, 1)).astype(np.float32)
    turned = weight if axis == 0 else weight.T
    found = on_grid(turned, axis, dtype)
    assert found is not None
    np.testing.assert_array_equal(found.codes if axis == 0 else found.codes.T, codes)
    assert found.codes.dtype == np.int8
    assert found.scale.shape == (channels,)
    assert represents(found.codes, found.scale, axis, turned)


def test_a_channel_far_smaller_than_another_is_not_zeros() -> None:
    codes = np.int8([[127, 1, -5, 60, 7, 2], [90, 127, 1, -3, 0, 8]])
    weight = codes * np.float32([[1e2], [1e-6]])
    found = on_grid(weight, 0)
    assert found is not None
    np.testing.assert_array_equal(found.codes, codes)
    assert not represents(np.zeros_like(codes[1:]), np.float32([1]), 0, weight[1:])


def test_the_scale_is_the_very_one() -> None:
    rng = np.random.default_rng(0)
    scale = rng.uniform(1e-4, 1e-1, 200).astype(np.float32)
    codes = rng.integers(-127, 128, (200, 64))
    found = on_grid(codes.astype(np.float32) * scale[:, None], 0)
    assert found is not None
    np.testing.assert_array_equal(found.scale, scale)


def test_channels_of_zeros_have_codes_of_zero() -> None:
    weight = np.zeros((3, 8), np.float32)
    weight[1] = np.float32([1, -2, 3, 0, 0, 7, -7, 5]) * np.float32(0.3)
    found = on_grid(weight, 0)
    assert found is not None
    np.testing.assert_array_equal(found.codes, np.rint(weight / np.float32(0.3)))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), depth=st.integers(9, 64), channels=st.integers(1, 5))
def test_real_weights_have_none(seed: int, depth: int, channels: int) -> None:
    weight = np.random.default_rng(seed).standard_normal((channels, depth)).astype(np.float32)
    assert on_grid(weight, 0) is None


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_no_numbers_have_none(wrong: float) -> None:
    weight = np.ones((2, 8), np.float32)
    weight[1, 3] = wrong
    assert on_grid(weight, 0) is None


def test_too_few_weights_tell_nothing() -> None:
    assert on_grid(np.float32([[1, 2, 3]]), 0) is None


def test_codes_of_more_bits_are_none_of_fewer() -> None:
    weight = np.float32([[9, 1, -3, 5, 2, 0, 7, -8]])
    assert on_grid(weight, 0, INT8) is not None
    assert on_grid(weight, 0, INT4) is None


def test_represents_asks_every_weight() -> None:
    codes, scale = np.int8([[3, -5, 7]]), np.float32([0.5])
    weight = codes * scale
    assert represents(codes, scale, 0, weight)
    weight[0, 1] += 0.01
    assert not represents(codes, scale, 0, weight)
