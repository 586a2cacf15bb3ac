"""Softmax of quantized rows in integers: a table of exponentials and one reciprocal a row.

    d = max(x) - x                      of the unmasked values of a row, in 0 … 255 or 0 … 65535
    e = exp(-d * scale)                 in steps of 2^-15, from tables; 0 where the row is masked
    r = floor(2^30 / sum e)
    p = min((e * r + 2^21) >> 22, 255)  the probability in steps of 1/256

e * r is at most 2^30, so everything but the division of a row fits int32. The floor of r moves p by no more
than 2^-7 of a step, whatever the length of the row, since p * 2^22 / r <= e.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: e of a difference of 0.
ONE = 2**15 - 1
#: The result is an int8 with this scale and zero point: 0 … 255 in steps of 1/256.
SCALE, ZERO_POINT = 1 / 256, -128
#: The longest row: its sum of exponentials fits int32.
LONGEST = 2**16
_RECIPROCAL = 2**30
_SHIFT = 22


@dataclass(frozen=True)
class Exponentials:
    """exp(-d * scale) for d = 256 * h + l as coarse[h] * fine[l]: int16 [256] each, in steps of 2^-15."""

    coarse: np.ndarray
    fine: np.ndarray


def exponentials(scale: float) -> Exponentials:
    """The tables for values in steps of `scale`; scale 0.1 -> fine[10] = round(32767 / e) = 12054."""
    steps = np.arange(256, dtype=np.float64)
    return Exponentials(*(_table(np.exp(-steps * unit * scale)) for unit in (256, 1)))


def _table(real: np.ndarray) -> np.ndarray:
    return np.rint(real * ONE).astype(np.int16)


def exponential(difference: np.ndarray, tables: Exponentials) -> np.ndarray:
    """e of differences in 0 … 65535: int32. Below 256 it is the entry of the fine table itself."""
    high, low = difference >> 8, difference & 255
    product = tables.coarse.astype(np.int32)[high] * tables.fine.astype(np.int32)[low]
    return np.where(high == 0, tables.fine.astype(np.int32)[low], (product + 2**14) >> 15)


def softmax(x: np.ndarray, tables: Exponentials, masked: np.ndarray | None = None) -> np.ndarray:
    """x int8 or int16 [..., n], masked bool (broadcast to it) -> int8 [..., n]; see ZERO_POINT and SCALE.

    A row that is masked whole gives zeros. Raises ValueError for rows longer than LONGEST.
    """
    if x.shape[-1] > LONGEST:
        raise ValueError(f"softmax of rows of {x.shape[-1]} values; at most {LONGEST} are summed in 32 bits")
    wide = x.astype(np.int32)
    hidden = np.zeros(x.shape, bool) if masked is None else np.broadcast_to(masked, x.shape)
    lowest = np.iinfo(x.dtype).min
    largest = np.where(hidden, lowest, wide).max(axis=-1, keepdims=True)
    e = np.where(hidden, 0, exponential(np.maximum(largest - wide, 0), tables))
    total = e.sum(axis=-1, keepdims=True, dtype=np.int64)
    reciprocal = np.where(total > 0, _RECIPROCAL // np.maximum(total, 1), 0)
    p = np.minimum((e * reciprocal + 2 ** (_SHIFT - 1)) >> _SHIFT, 255)
    return (p + ZERO_POINT).astype(np.int8)
