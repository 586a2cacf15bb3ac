"""How far the results of a layer can be from zero: what is proven here, an epilogue need not check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .requantize import Bounds

_LARGEST_ACTIVATION = 128
_INT16 = 2**15 - 1


def proven(bounds: Bounds | None, constants: Sequence[np.ndarray]) -> Bounds | None:
    """`bounds` of a layer whose weight, bias, multiplier and shift are `constants`, with what they prove.

    |acc| <= |bias| + 128 sum |w|, and the multiplier is below 2^31.
    """
    if bounds is None:
        return None
    weight, bias, _, shift = constants
    sums = np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(axis=1)
    largest = np.abs(bias.astype(np.int64)) + _LARGEST_ACTIVATION * sums
    result = int(((largest >> shift) + 1).max())  # a rounding shift adds one at most
    return replace(bounds, fits_int16=result + abs(bounds.zero_point) <= _INT16)
