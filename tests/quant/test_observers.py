"""Observers: shards observed apart and merged give exactly what one run gives; the ranges they choose."""

from __future__ import annotations

from fractions import Fraction
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwptq.formats import INT4, INT8
from hwptq.quant.histogram import BINS, Histogram
from hwptq.quant.observers import OBSERVERS as ALL_OBSERVERS
from hwptq.quant.observers import MovingAverage, rows_of
from hwptq.quant.qparams import activation_qparams

floats = st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-4, 4, width=32) | st.just(0.0)
samples = st.lists(arrays(np.float32, (2, 5), elements=floats), min_size=1, max_size=8)

#: Those of ours.
OBSERVERS = {
    n: ALL_OBSERVERS[n] for n in ("minmax", "moving-average", "percentile", "mse", "entropy", "auto")
}


def fields(value):
    """All arrays and numbers of a state, to compare exactly."""
    if hasattr(value, "__dataclass_fields__"):
        return [f for name in value.__dataclass_fields__ for f in fields(getattr(value, name))]
    return [np.asarray(value).tolist()]


def one_run(observer, parts):
    """The state after observing sample by sample."""
    return reduce(lambda state, rows: state.merge(observer.of(rows)), parts[1:], observer.of(parts[0]))


@pytest.mark.parametrize("name", OBSERVERS)
@settings(max_examples=60, deadline=None)
@given(parts=samples, data=st.data())
def test_merging_shards_equals_one_run(name, parts, data):
    observer = OBSERVERS[name]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(parts)))) | {len(parts)})
    shards = [parts[a:b] for a, b in zip([0, *cuts], cuts, strict=False)]
    merged = reduce(lambda a, b: a.merge(b), [one_run(observer, s) for s in shards if s])
    whole = one_run(observer, parts)
    assert fields(merged) == fields(whole)  # and so are the ranges: they follow from the state


@pytest.mark.parametrize("name", [n for n in OBSERVERS if n != "moving-average"])
@settings(max_examples=30, deadline=None)
@given(parts=samples, data=st.data())
def test_the_order_does_not_matter(name, parts, data):
    other = data.draw(st.permutations(parts))
    assert fields(one_run(OBSERVERS[name], parts)) == fields(one_run(OBSERVERS[name], other))


def rows_in(histogram):
    """The histogram of each row."""
    found = []
    histogram.map(lambda row: found.append(row) or (0.0, 0.0))
    return found


@settings(max_examples=60, deadline=None)
@given(parts=samples)
def test_a_histogram_counts_each_value_in_its_bin(parts):
    histogram = reduce(lambda a, b: a.merge(b), map(Histogram.of, parts))
    values = np.concatenate(parts, axis=1).astype(np.float64)
    found = rows_in(histogram)
    for row, bins in zip(values, found, strict=True):
        counts, edges = bins.counts, bins.edges
        assert counts.sum() == row.size
        assert (bins.low, bins.high) == (row.min(), row.max())
        index = np.floor(row / bins.width).astype(object) - bins.start
        assert np.array_equal(np.bincount(index.astype(int), minlength=BINS), counts)
        assert edges[0] <= row.min()
        assert row.max() < edges[-1]


def test_bins_are_as_fine_as_the_range_allows():
    (row,) = rows_in(Histogram.of(np.float32([[0.0, 1.0]])))
    assert row.width == 2.0**-10  # 1025 bins; 2^-11 would need 2049


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40))
def test_the_moving_average_follows_its_definition(values):
    state = one_run(MovingAverage, [np.float32([[v]]) for v in values])
    weights = [Fraction(63, 64) ** (len(values) - 1 - i) for i in range(len(values))]
    mean = sum(w * Fraction(v) for w, v in zip(weights, values, strict=True)) / sum(weights)
    assert state.range()[0][0] == float(mean)


def test_memory_does_not_grow_with_samples():
    rng = np.random.default_rng(0)
    histogram = one_run(OBSERVERS["mse"], [rng.normal(size=(3, 50)).astype(np.float32) for _ in range(50)])
    assert histogram.histogram.counts.shape == (3, BINS)


@pytest.mark.parametrize(
    ("axis", "group", "shape"), [(None, 1, (1, 96)), (1, 1, (6, 16)), (1, 3, (2, 48)), (-1, 2, (2, 48))]
)
def test_rows(axis, group, shape):
    value = np.arange(96, dtype=np.float32).reshape(1, 6, 4, 4)
    rows = rows_of(value, axis, group)
    assert rows.shape == shape
    if axis == 1:
        assert np.array_equal(rows[1], value[0, group : 2 * group].ravel())


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="6 channels can't be divided into groups of 4"):
        rows_of(np.zeros((1, 6, 2, 2), np.float32), 1, 4)


def bell(seed=0, outlier=50.0):
    """A normal distribution and one value far outside."""
    values = np.random.default_rng(seed).normal(size=20000).astype(np.float32)
    values[7] = outlier
    return values[None]


def squared_error(values, low, high, dtype):
    q = activation_qparams(low, high, 0.0, dtype)
    steps = np.clip(np.rint(values / q.scale) + q.zero_point, dtype.qmin, dtype.qmax)
    return float((((steps - q.zero_point) * q.scale - values) ** 2).mean())


@pytest.mark.parametrize("dtype", [INT8, INT4])
@pytest.mark.parametrize("shape", ["two-sided", "positive", "negative"])
def test_mse_is_best_in_squared_error(dtype, shape):
    rows = bell()
    rows = {"two-sided": rows, "positive": np.maximum(rows, 0), "negative": -np.maximum(rows, 0)}[shape]
    errors = {}
    for name, observer in OBSERVERS.items():
        (low,), (high,) = observer.of(rows).range(dtype)
        errors[name] = squared_error(rows.astype(np.float64), low, high, dtype)
    assert errors["mse"] <= 1.01 * min(errors.values())
    assert errors["mse"] < 0.5 * errors["minmax"] or dtype is INT8


def test_mse_depends_on_the_dtype():
    state = OBSERVERS["mse"].of(bell(outlier=5.0))
    assert state.range(INT4)[1][0] < 0.8 * state.range(INT8)[1][0]


@pytest.mark.parametrize("name", ["percentile", "mse", "entropy"])
def test_an_outlier_is_clipped(name):
    (low,), (high,) = OBSERVERS[name].of(np.maximum(bell(outlier=15.0), 0)).range(INT4)
    assert low == 0
    assert 1.5 < high < 6


@pytest.mark.parametrize("name", OBSERVERS)
@pytest.mark.parametrize("value", [0.0, 3.25, -1e-30])
def test_a_constant_tensor_keeps_its_value(name, value):
    (low,), (high,) = OBSERVERS[name].of(np.full((1, 9), value, np.float32)).range()
    assert min(low, 0) <= np.float32(value) <= max(high, 0)


def test_percentile_leaves_out_what_it_promises():
    rows = np.arange(100_000, dtype=np.float32)[None]
    (low,), (high,) = OBSERVERS["percentile"].of(rows).range()
    assert low == pytest.approx(10, abs=64)
    assert high == pytest.approx(99_990, abs=64)
