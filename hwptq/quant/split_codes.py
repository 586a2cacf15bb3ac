"""Codes of more than 8 bits as two codes of 8 whose sum they are: a weight that reads its input twice.

w x = a x + b x with w = a + b, exactly, where all of w lies within twice the range of an int8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwptq.formats import INT8


@dataclass(frozen=True)
class SplitCodes:
    """first: int8 of the shape of the codes; second: int8 for the input channels `channels` alone, which are
    to stand behind all others once more."""

    first: np.ndarray
    second: np.ndarray
    channels: tuple[int, ...]


def split_codes(codes: np.ndarray, axis: int) -> SplitCodes | None:
    """Codes with their input channels along `axis`; None where two don't suffice.

    [[200, -5, 3]] -> [[127, -5, 3]] and [[73]] for channel 0.
    """
    first = np.clip(codes, INT8.qmin, INT8.qmax)
    rest = codes - first
    if rest.min(initial=0) < INT8.qmin or rest.max(initial=0) > INT8.qmax:
        return None
    used = np.abs(np.moveaxis(rest, axis, 0)).reshape(codes.shape[axis], -1).max(axis=1) > 0
    channels = np.flatnonzero(used)
    second = rest.take(channels, axis).astype(INT8.held)
    return SplitCodes(first.astype(INT8.held), second, tuple(int(c) for c in channels))
