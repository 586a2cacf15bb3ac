"""Constants of a depthwise convolution by dot products: weights and factors of each vector, in order of use.

The vectors of a line begin at different channels. Where few do, each has its own constants, one operand after
the next. Where many do, they would take a multiple of the bytes of the weights and fall out of the first
cache: 200 channels in vectors of 64 bytes make 25 of them. There neighbouring vectors share: constants are
those of blocks, of as many bytes as the device interleaves at once, in their order along the line, and a
vector takes its blocks from wherever it begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import Expr

from .depthwise_plan import ROWS, Plan


@dataclass(frozen=True)
class Entries:
    """What constants are kept of: whole vectors, or blocks that vectors share if `shared`."""

    plan: Plan

    @property
    def shared(self) -> bool:
        plan = self.plan
        blocks = len(plan.first_channels) * self._span
        size = blocks * plan.block * plan.conv.kernel[1] * plan.groups * plan.outputs * ROWS
        return size > plan.first_cache // 2 and len(self._block_channels) < blocks

    @property
    def bytes(self) -> int:
        """Of one entry: elements of the line, or weights of one operand."""
        return self.plan.block if self.shared else self.plan.width

    def channels(self) -> np.ndarray:
        """The channel of each byte of each entry, int [entries, bytes]; -1 beyond the line."""
        plan, at = self.plan, np.arange(self.bytes)
        first = self._block_channels if self.shared else plan.first_channels
        channels = (np.array(first)[:, np.newaxis] + at) % plan.conv.ci
        return channels if self.shared else np.where(at < plan.line, channels, -1)

    def entry(self, i: Expr) -> Expr:
        """The first entry of vector i of a line."""
        plan = self.plan
        if not self.shared:
            return plan.pattern(i)
        usual = T.floormod(i * self._span, self._period)
        last = plan.starts[-1] // plan.block % self._period if self._aligned else self._regular
        return T.Select(i == plan.vectors - 1, last, usual)

    def pack(self, values: np.ndarray) -> np.ndarray:
        """[entries, operands, size] in the order that `offset` reads."""
        return np.ascontiguousarray(values.swapaxes(0, 1) if self.shared else values)

    def offset(self, entry: Expr, operand: Expr, operands: int, size: int) -> Expr:
        """Where an operand of `size` elements an entry begins."""
        if self.shared:
            return (operand * len(self.channels()) + entry) * size
        return (entry * operands + operand) * size

    @property
    def _span(self) -> int:
        """Blocks in a vector."""
        return self.plan.width // self.plan.block

    @property
    def _period(self) -> int:
        """Blocks after which the channels repeat."""
        return lcm(self.plan.conv.ci, self.plan.block) // self.plan.block

    @property
    def _aligned(self) -> bool:
        """Whether the last vector, which may overlap the one before it, begins with a block."""
        return self.plan.starts[-1] % self.plan.block == 0

    @property
    def _regular(self) -> int:
        """Blocks for all vectors that begin with one: any of a period, and those behind it."""
        return self._period + self._span - 1

    @property
    def _block_channels(self) -> list[int]:
        plan = self.plan
        starts = [n * plan.block for n in range(self._regular)]
        if not self._aligned:
            starts += [plan.starts[-1] + n * plan.block for n in range(self._span)]
        return [start % plan.conv.ci for start in starts]


def pack_factors(values: np.ndarray, entries: Entries, extra: int) -> np.ndarray:
    """[C] -> int32, 4 operands; `extra` beyond the line."""
    channels = entries.channels()[:, _lane_order(entries)]
    return entries.pack(np.where(channels < 0, np.int32(extra), values[channels]).astype(np.int32))


def pack_taps(taps: np.ndarray, entries: Entries) -> np.ndarray:
    """int8 [C,KH,KW] -> int8, KW * groups * outputs * 4 operands."""
    plan = entries.plan
    kh, kw = plan.conv.kernel
    rows = np.zeros((taps.shape[0] + 1, plan.outputs, plan.groups * ROWS, kw), np.int8)
    for r in range(plan.outputs):
        rows[:-1, r, r : r + kh] = taps
    channels = entries.channels()[:, _lane_order(entries)]  # -1 is the row of zeros
    grouped = rows.reshape(-1, plan.outputs, plan.groups, ROWS, kw)[channels]
    by_operand = grouped.transpose(0, 6, 4, 3, 1, 2, 5)
    return entries.pack(by_operand.reshape(len(channels), -1, entries.bytes))


def _lane_order(entries: Entries) -> np.ndarray:
    """The byte that lands in each lane when four vectors are interleaved: int [4, bytes / 4] of an entry.

    Block b of 16 bytes goes to lanes 4b ... 4b+3 of the four results, four bytes to each; other sizes alike.
    """
    block = entries.plan.block
    lanes, part = np.arange(entries.bytes // ROWS), block // ROWS
    first = lanes // part * block + lanes % part
    return first + np.arange(ROWS)[:, np.newaxis] * part
