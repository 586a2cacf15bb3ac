"""Weights, bias, multiplier and shift in the order in which a kernel reads them. All numpy, at compile time.

Output channels are grouped into vectors of `lanes`. Where they do not divide, the last vector overlaps the
one before it: 10 channels on 8 lanes -> vectors 0…7 and 2…9. Fewer channels than lanes -> one vector whose
surplus lanes hold zeros.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwptq.quant.fixed_point import MAX_SHIFT

_UNSIGNED_OFFSET = 128


def vector_count(co: int, lanes: int) -> int:
    """Vectors that cover `co` channels."""
    return -(-co // lanes)


def channels_of(co: int, lanes: int) -> np.ndarray:
    """The channel in each lane, int [vectors, lanes]; -1 in a surplus lane."""
    if co < lanes:
        return np.where(np.arange(lanes) < co, np.arange(lanes), -1)[np.newaxis]
    first = np.minimum(np.arange(vector_count(co, lanes)) * lanes, co - lanes)
    return first[:, np.newaxis] + np.arange(lanes)


def pack_channels(values: np.ndarray, lanes: int, surplus: int = 0) -> np.ndarray:
    """[O] -> [vectors * lanes] of the same dtype, `surplus` in the surplus lanes."""
    channels = channels_of(len(values), lanes).reshape(-1)
    return np.where(channels < 0, values.dtype.type(surplus), values[channels])


def pack_scales(scales: Sequence[np.ndarray], lanes: int) -> list[np.ndarray]:
    """(multiplier, shift) or (float32 scale,), [O] -> [vectors * lanes]; surplus lanes get valid values."""
    return [pack_channels(s, lanes, surplus) for s, surplus in zip(scales, (2**30, MAX_SHIFT), strict=False)]


def packed_bits(bits: int) -> int:
    """How many bits a kernel stores an integer weight of `bits` in: a nibble where it fits, else a byte."""
    return 4 if bits <= 4 else 8


def stored_rows(groups: int, bits: int) -> int:
    """Rows that hold the weights of a run of `groups` groups of k: one each, or two int4 groups to a row."""
    return groups if bits == 8 else -(-groups // 2)


def pack_weights(
    weight: np.ndarray, run: int, lanes: int, k: int, bits: int = 8, block: int = 1
) -> np.ndarray:
    """int8 [O, ...] -> int8 [vectors * runs * stored_rows(ceil(run / k), bits), lanes * k].

    The vectors of a block, `block` of them or what is left at the end, take turns row by row.

    Each channel's weights are runs of `run` elements that stand side by side in the image; a run is padded
    with zeros to a multiple of k. A row of 8 bits is the weight operand of one instruction. A row of 4 bits
    is two of them: every weight is 16 times an int4 value, so the upper nibble says all, and that of the
    first operand moves to the lower one. P << 4 and P & 0xF0 give the operands back.
    """
    co = weight.shape[0]
    runs = weight.reshape(co, -1, run)
    padded = np.pad(runs, ((0, 0), (0, 0), (0, -run % k)))
    groups = padded.reshape(co, runs.shape[1], -1, k)
    channels = channels_of(co, lanes)
    surplus = (channels < 0)[:, :, np.newaxis, np.newaxis, np.newaxis]
    chosen = np.where(surplus, 0, groups[channels]).transpose(0, 2, 3, 1, 4)
    rows = chosen.reshape(*chosen.shape[:3], lanes * k)
    if bits == 4:
        rows = _two_a_byte(rows)
    rows = rows.reshape(len(channels), -1, lanes * k).astype(np.int8)
    parts = [rows[i : i + block].swapaxes(0, 1) for i in range(0, len(rows), block)]
    return np.concatenate([part.reshape(-1, lanes * k) for part in parts])


def _two_a_byte(rows: np.ndarray) -> np.ndarray:
    """[..., groups, lanes * k] of multiples of 16 -> [..., ceil(groups / 2), lanes * k]."""
    if np.any(rows % 16):
        raise ValueError("weights of 4 bits must be multiples of 16")
    even = np.pad(rows, ((0, 0), (0, 0), (0, rows.shape[2] % 2), (0, 0))).view(np.uint8)
    return (even[:, :, 0::2] >> 4 | even[:, :, 1::2]).view(np.int8)


def without_offset(bias: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """bias - 128 * sum of weights: what cancels the + 128 of every activation.

    It may wrap around in int32, as the accumulator then does: the final sum is right modulo 2^32.
    """
    sums = weight.reshape(len(weight), -1).sum(axis=1, dtype=np.int64)
    return (bias.astype(np.int64) - _UNSIGNED_OFFSET * sums).astype(np.int32)
