"""Scales of the channels of a tensor under one zero point: what each is divided by to fill a common range."""

from __future__ import annotations

import numpy as np

_SHARES = np.linspace(0.0, 1.0, 129)
_MOST = 2.0
_TINY = 1e-30


def channel_scales(low: np.ndarray, high: np.ndarray, least: np.ndarray | float = 0.0) -> np.ndarray:
    """s [C], float64, the largest 1: the range [low, high] of each channel, divided by s, lies in one range.

    That has a part below zero and one above, such that the steps of the channels are small beside their own
    ranges. No channel has more than twice the steps that one range for all would give it. `least`: no s is
    less of the largest. (0, 2), (0, 1) -> 1, 0.5; (-1, 1), (0, 1) -> 1, 1.
    """
    low, high = np.minimum(low, 0.0).astype(np.float64), np.maximum(high, 0.0).astype(np.float64)
    spans = np.maximum(high - low, _TINY)
    whole = float(high.max() - low.min())
    if whole < _TINY:
        return np.ones_like(low)
    found = [_scales(low, high, share) for share in _SHARES]
    fitting = [np.full_like(low, whole), *(s for s in found if np.all(s <= _MOST * whole))]
    best = min(fitting, key=lambda s: float(np.mean(np.square(s / spans))))
    return np.maximum(best / best.max(), least)


def _scales(low: np.ndarray, high: np.ndarray, share: float) -> np.ndarray:
    """The length of the least range around zero that holds each channel, `share` of it below."""
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.where(low < 0, -low / share, 0.0)
        above = np.where(high > 0, high / (1 - share), 0.0)
    return np.maximum(below, above)
