"""Moments: the sums of shards add up exactly, and their statistics are those of the columns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwptq.quant.moments import Moments
from hwptq.quant.rounding import loss


def columns(seed: int, groups: int, rows: int, depth: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers such as quantized inputs less a zero point, and integer results."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-255, 256, (groups, count, depth))
    return x, rng.integers(-1000, 1000, (groups, count, rows))


def collected(x: np.ndarray, y: np.ndarray) -> Moments:
    moments = Moments.empty(len(x), y.shape[2], x.shape[2])
    moments.add(x, y)
    return moments


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 4), st.integers(1, 6), st.integers(2, 40))
def test_merging_shards_gives_exactly_what_one_run_gives(seed, groups, rows, depth, count):
    x, y = columns(seed, groups, rows, depth, count)
    cut = 1 + seed % (count - 1)
    whole = collected(x, y)
    merged = collected(x[:, cut:], y[:, cut:]).merge(collected(x[:, :cut], y[:, :cut]))
    assert merged.count == whole.count == count
    for name in ("x", "y", "xx", "yx"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))


@pytest.mark.parametrize(("groups", "rows", "depth"), [(1, 5, 7), (4, 1, 9), (3, 2, 1)])
def test_statistics_are_means_and_covariances(groups, rows, depth):
    x, y = columns(1, groups, rows, depth, 200)
    found = collected(x, y).statistics()
    for g in range(groups):
        both = np.cov(np.concatenate([x[g], y[g]], axis=1).T, bias=True).reshape(depth + rows, -1)
        np.testing.assert_allclose(found.gram[g], both[:depth, :depth])
        np.testing.assert_allclose(found.cross[g], both[depth:, :depth], atol=1e-6)
    np.testing.assert_allclose(found.x_mean, x.mean(axis=1))
    np.testing.assert_allclose(found.y_mean, y.mean(axis=1))


@given(st.integers(0, 10**6))
def test_regression_finds_the_map_and_the_bias_what_is_left(seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(-255, 256, (2, 300, 5)).astype(float)
    true = rng.standard_normal((2, 3, 5))
    y = np.einsum("grk,gnk->gnr", true, x) + 7
    found = collected(x, y).statistics()
    near, _ = replace(found, count=10**9).regressed(true + 0.01)
    assert np.abs(near - true).max() < 0.01 * 0.05
    np.testing.assert_allclose(found.bias(true), 7)


@given(st.integers(0, 10**6), st.integers(1, 40))
def test_target_and_metric_tell_the_error_of_any_weights(seed, count):
    """E|y - V x|^2 + ridge |V - W|^2, means taken off, up to a constant."""
    rng = np.random.default_rng(seed)
    x, y = columns(seed, 2, 3, 4, count)
    found = collected(x, y).statistics()
    weight, first, second = rng.standard_normal((3, 2, 3, 4))
    target, metric = found.regressed(weight)

    def error(v):
        left = (y - y.mean(axis=1, keepdims=True)) - (x - x.mean(axis=1, keepdims=True)) @ v.transpose(
            0, 2, 1
        )
        return np.square(left).mean(axis=1) + found.ridge()[:, None] * np.square(v - weight).sum(axis=2)

    by_metric = loss(first - target, metric) - loss(second - target, metric)
    np.testing.assert_allclose(by_metric, error(first) - error(second), rtol=1e-6, atol=1e-5)


def test_few_columns_hold_the_weights_more_strongly():
    x, y = columns(3, 1, 2, 4, 60)
    found = collected(x, y).statistics()
    few, many = replace(found, count=2), replace(found, count=10**6)
    assert few.ridge() > 10 * many.ridge() > 0


def test_without_variance_the_regression_keeps_the_weights():
    weight = np.arange(8.0).reshape(1, 2, 4)
    found = collected(np.ones((1, 9, 4), int), np.ones((1, 9, 2), int)).statistics()
    np.testing.assert_allclose(found.regressed(weight)[0], weight)


def test_scaled_inputs():
    x, y = columns(4, 2, 2, 3, 60)
    direct, scaled = collected(x * 0.5, y).statistics(), collected(x, y).statistics().scaled(0.5)
    for name in ("x_mean", "y_mean", "gram", "cross"):
        np.testing.assert_allclose(getattr(scaled, name), getattr(direct, name), atol=1e-9)


@given(st.integers(0, 10**6), st.floats(0, 1000))
def test_columns_near_their_mean_keep_their_covariance_in_float32(seed, mean):
    """A shift costs nothing that a float32 holds, if it is taken off first."""
    x, y = columns(seed, 2, 3, 4, 60)
    x_mean, y_mean = (np.rint(v.mean(axis=1)) for v in (x, y))
    centred = [(v - m[:, None, :]).astype(np.float32) for v, m in ((x, x_mean), (y, y_mean))]
    found = collected(*centred).statistics().shifted(x_mean + mean, y_mean - mean)
    wanted = collected(x + mean, y - mean).statistics()
    for name in ("x_mean", "y_mean", "gram", "cross"):
        a, b = getattr(found, name), getattr(wanted, name)
        np.testing.assert_allclose(a, b, atol=1e-6 * np.abs(b).max())
