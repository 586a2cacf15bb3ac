"""Weights by group, as graphs hold them: packed codes, and a scale for each group of neighbours in a row.

A row is what an output channel has, or an entry of a table: `depth` codes of a format in whole bytes (see
Format.pack), in groups of `size`, of which the last may have fewer. A weight is (level - zero) * scale: a
level is the value of a code, a zero an int8 of its group. Scales are float32; or their upper halves, the bits
of a bfloat16, as uint16, which take half a bit a weight in groups of 32; or bytes, where they are positive:
of a float32 the lower five bits of the exponent, 2^-24 to 2^7, and the upper three of the fraction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hwptq.formats import Format, bf16, format_of

#: Elements of a group, the fewest and the most: sums of more int8 products would not be exact in a float32.
SIZES = 8, 256
#: A byte b is the scale whose bits are (b << place) + bias.
BYTE_SCALE_PLACE, BYTE_SCALE_BIAS = 20, (127 - 24) << 23
#: The largest of them.
LARGEST_BYTE_SCALE = 240.0
_AT_ONCE = 2**18  # weights


@dataclass(frozen=True)
class GroupedRows:
    """Rows. codes: uint8 [R, bytes]; scales: float32, uint16 or uint8 [R, G]; zeros: int8 [R, G] or None."""

    weight: str  # the name of the format
    size: int
    depth: int
    codes: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray | None = None

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """What an operator takes: codes, scales, and zeros where there are any."""
        return (self.codes, self.scales) if self.zeros is None else (self.codes, self.scales, self.zeros)

    @property
    def bits(self) -> float:
        """Of a weight, with its part of scales and zeros."""
        return 8 * sum(a.nbytes for a in self.arrays) / (len(self.codes) * self.depth)


def group_count(depth: int, size: int) -> int:
    """Groups of a row."""
    return -(-depth // size)


def row_bytes(depth: int, bits: int) -> int:
    """Bytes of a row of codes."""
    return -(-depth * bits // 8)


def pack_rows(levels: np.ndarray, weight: Format) -> np.ndarray:
    """Levels int8 [R, K] -> codes uint8 [R, bytes]. int4 [[1, -2, 3]] -> [[0xE1, 0x03]]."""
    per = np.lcm(8, weight.bits) // weight.bits  # values of whole bytes

    def packed(rows: np.ndarray) -> np.ndarray:
        padded = np.pad(weight.bit_patterns(rows), ((0, 0), (0, -rows.shape[1] % per)))
        found = weight.pack(weight.from_bit_patterns(padded)).reshape(len(rows), -1)
        return found[:, : row_bytes(rows.shape[1], weight.bits)]

    return _in_parts(packed, levels)


def unpack_rows(codes: np.ndarray, weight: Format, depth: int) -> np.ndarray:
    """The inverse of pack_rows: int8 [R, depth]."""
    per = np.lcm(8, weight.bits) // 8  # bytes of whole values

    def unpacked(rows: np.ndarray) -> np.ndarray:
        padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % per)))
        each = padded.shape[1] * 8 // weight.bits
        return weight.unpack(padded.reshape(-1), len(rows) * each).reshape(len(rows), each)[:, :depth]

    return _in_parts(unpacked, codes)


def _in_parts(function: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
    """A function of each row, a few at a time, since it takes several times the memory."""
    count = max(1, _AT_ONCE // max(1, rows.shape[1]))
    return np.concatenate([function(rows[i : i + count]) for i in range(0, max(1, len(rows)), count)])


def short_scales(scales: np.ndarray) -> np.ndarray:
    """float32 -> the nearest upper halves, uint16."""
    return bf16.as_codes(bf16.encode(scales))


def byte_scales(scales: np.ndarray) -> np.ndarray:
    """float32 -> the nearest that bytes hold, uint8; what they don't reach becomes the end of their range."""
    places = np.maximum(scales, 0).astype(np.float32).view(np.uint32).astype(np.int64) - BYTE_SCALE_BIAS
    return np.clip(places + (1 << BYTE_SCALE_PLACE - 1) >> BYTE_SCALE_PLACE, 0, 255).astype(np.uint8)


def real_scales(scales: np.ndarray) -> np.ndarray:
    """Scales in any form as float32."""
    if scales.itemsize == 1:
        return ((scales.astype(np.int32) << BYTE_SCALE_PLACE) + BYTE_SCALE_BIAS).view(np.float32)
    return scales if scales.dtype == np.float32 else bf16.VALUES[scales]


def group_levels(
    codes: np.ndarray, zeros: np.ndarray | None, weight: str, size: int, depth: int
) -> np.ndarray:
    """level - zero of each weight: int16 [R, depth]."""
    levels = unpack_rows(codes, format_of(weight), depth).astype(np.int16)
    return levels if zeros is None else levels - spread(zeros, size, depth).astype(np.int16)


def group_values(
    codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None, weight: str, size: int, depth: int
) -> np.ndarray:
    """The weights: float32(level - zero) * scale, float32 [R, depth]."""
    levels = group_levels(codes, zeros, weight, size, depth).astype(np.float32)
    return levels * spread(real_scales(scales), size, depth)


def spread(of_groups: np.ndarray, size: int, depth: int) -> np.ndarray:
    """[R, G] -> [R, depth]: what each group has, for each of its elements."""
    return np.repeat(of_groups, size, axis=1)[:, :depth]
