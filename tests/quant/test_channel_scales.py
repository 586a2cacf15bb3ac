"""Scales of channels under one zero point: all fill one range, and none loses more than a bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hwptq.quant.channel_scales import channel_scales

SPANS = st.lists(st.tuples(st.floats(-100, 10), st.floats(-10, 100)), min_size=1, max_size=6)


def span(low, high):
    """The length of a range with its zero."""
    return max(float(np.max(high)), 0.0) - min(float(np.min(low)), 0.0)


@given(SPANS)
def test_no_channel_loses_more_than_a_bit(pairs):
    low, high = (np.array(ends) for ends in zip(*((min(p), max(p)) for p in pairs), strict=True))
    s = channel_scales(low, high)
    assert s.max() == 1
    assert s.min() >= 0
    seen = s > 0
    if span(low, high) > 1e-6:
        after = span(low[seen] / s[seen], high[seen] / s[seen])
        assert np.all(after * s <= 2 * span(low, high) * (1 + 1e-6))


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6))
def test_channels_that_begin_at_zero_all_fill_the_range(high):
    ends = np.array(high)
    s = channel_scales(np.zeros_like(ends), ends)
    np.testing.assert_allclose(ends / s, ends.max())


def test_no_scale_is_less_than_the_least():
    least = np.array([0.0, 0.25, 0.0])
    np.testing.assert_allclose(
        channel_scales(np.zeros(3), np.array([8.0, 1e-3, 2.0]), least), [1, 0.25, 0.25]
    )


def test_channels_of_nothing_but_zeros_stay():
    assert np.array_equal(channel_scales(np.zeros(2), np.zeros(2)), [1, 1])
