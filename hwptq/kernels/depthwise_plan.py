"""How a depthwise convolution by dot products is cut into vectors, and its constants in their order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm.script.ir_builder import tirx as T

from .builder import Expr
from .convolution import Convolution

ROWS = 4  # of a window that one instruction takes


@dataclass(frozen=True)
class Plan:
    """How the outputs of a convolution are cut into vectors of `width` bytes.

    A line is what one loop over vectors covers: a row of outputs if `by_rows`, else the channels of one
    pixel, of `pixels` neighbours at once. `first_channels` are those of the distinct vectors; vector i <
    `vectors` of a line begins with that of `pattern(i)`.
    """

    conv: Convolution
    width: int
    pixels: int = 1
    block: int = 16  # bytes within which the device interleaves vectors
    by_rows: bool = False

    @property
    def line(self) -> int:
        return self.conv.ci * (self.conv.out[1] if self.by_rows else 1)

    @property
    def vectors(self) -> int:
        return -(-self.line // self.width)

    @property
    def outputs(self) -> int:
        """Output rows that share their input rows."""
        shared = self.conv.strides[0] == 1 and self.conv.dilation[0] == 1 and self.conv.out[0] > 1
        return 2 if shared else 1

    @property
    def groups(self) -> int:
        """Groups of input rows under one column of a window."""
        return -(-(self.conv.kernel[0] + self.outputs - 1) // ROWS)

    @property
    def starts(self) -> list[int]:
        return [max(0, min(i * self.width, self.line - self.width)) for i in range(self.vectors)]

    @property
    def first_channels(self) -> list[int]:
        return list(dict.fromkeys(start % self.conv.ci for start in self.starts))

    def start(self, i: Expr) -> Expr:
        """First element of vector i; the last one overlaps the one before it."""
        if self.vectors == 1:
            return 0
        last = self.line - self.width
        return i * self.width if self.line % self.width == 0 else T.min(i * self.width, last)

    def pattern(self, i: Expr) -> Expr:
        """Index of vector i in `first_channels`."""
        if self.vectors == 1:
            return 0
        distinct = self.first_channels
        regular = list(dict.fromkeys(start % self.conv.ci for start in self.starts[:-1]))
        index = i if len(regular) >= self.vectors - 1 else T.floormod(i, len(regular))
        last = distinct.index(self.starts[-1] % self.conv.ci)
        usual = (self.vectors - 1) % len(regular) if len(regular) < self.vectors - 1 else self.vectors - 1
        if last == usual:
            return index
        # the minimum changes nothing, but shows an analysis of bounds that the index stays inside
        return T.Select(i == self.vectors - 1, last, T.min(index, len(distinct) - 1))

    def channels(self) -> np.ndarray:
        """The channel of each byte, int [patterns, width]; -1 beyond the line."""
        at = np.arange(self.width)
        first = np.array(self.first_channels)[:, np.newaxis]
        return np.where(at < self.line, (first + at) % self.conv.ci, -1)


def lane_order(plan: Plan) -> np.ndarray:
    """The byte that lands in each lane when four vectors are interleaved: int [4, width / 4].

    Block b of 16 bytes goes to lanes 4b ... 4b+3 of the four results, four bytes to each; other sizes alike.
    """
    lanes, part = np.arange(plan.width // ROWS), plan.block // ROWS
    first = lanes // part * plan.block + lanes % part
    return first + np.arange(ROWS)[:, np.newaxis] * part


def pack_factors(values: np.ndarray, plan: Plan, extra: int) -> np.ndarray:
    """[C] -> int32 [patterns, 4, lanes]."""
    channels = plan.channels()[:, lane_order(plan)]
    return np.where(channels < 0, np.int32(extra), values[channels]).astype(np.int32)


def pack_taps(taps: np.ndarray, plan: Plan) -> np.ndarray:
    """int8 [C,KH,KW] -> [patterns, KW, groups, outputs, 4, 4 * lanes]: the operands in order of use."""
    kh, kw = plan.conv.kernel
    rows = np.zeros((taps.shape[0] + 1, plan.outputs, plan.groups * ROWS, kw), np.int8)
    for r in range(plan.outputs):
        rows[:-1, r, r : r + kh] = taps
    channels = plan.channels()[:, lane_order(plan)]  # -1 is the row of zeros
    grouped = rows.reshape(-1, plan.outputs, plan.groups, ROWS, kw)[channels]
    return np.ascontiguousarray(grouped.transpose(0, 6, 4, 3, 1, 2, 5)).reshape(
        len(channels), kw, plan.groups, plan.outputs, ROWS, plan.width
    )
