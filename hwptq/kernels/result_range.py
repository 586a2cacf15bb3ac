"""How far the results of a layer can be from zero: what is proven here, an epilogue need not check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hwptq.quant.fixed_point import STEPS, shortened
from hwptq.tir.requantize import Bounds

_INT16 = np.iinfo(np.int16)


def proven(
    bounds: Bounds | None, constants: Sequence[np.ndarray], dtype: str = "int8", acc_shift: int = 0
) -> Bounds | None:
    """`bounds` of a layer whose weight, bias, multiplier and shift are `constants`, with what they prove.

    dtype: of its activations; acc_shift: bits that its sums are shortened by. The sums of a channel are
    largest and smallest where each activation is the one or the other limit.
    """
    if bounds is None or bounds.rounding != STEPS:
        return bounds
    weight, bias, multiplier, shift = (c.astype(np.int64) for c in constants)
    held = np.iinfo(dtype)
    products = [limit * weight.reshape(len(weight), -1) for limit in (int(held.min), int(held.max))]
    sums = [choose(*products).sum(axis=1) + bias for choose in (np.minimum, np.maximum)]
    results = [_shifted(shortened(s, acc_shift), multiplier, shift) for s in sums]
    every = [r + z for r in results for z in (0, bounds.zero_point)]
    fits = all((_INT16.min <= r).all() and (r <= _INT16.max).all() for r in every)
    return replace(bounds, fits_int16=bool(fits))


def _shifted(acc: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The requantize step without zero point and clamp; int64 (see quant/fixed_point.py)."""
    high = (acc * multiplier + 2**30) >> 31
    return (high + (1 << (shift - 1))) >> shift
