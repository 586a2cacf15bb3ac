"""How a depthwise convolution by dot products is cut into vectors."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from hwptq.targets.memory import Memory
from hwptq.tir.builder import Expr

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
    first_cache: int = Memory.first_cache  # bytes
    lower: int = 0  # elements from the upper bytes of int16 activations to the lower ones; 0 = they are bytes

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
