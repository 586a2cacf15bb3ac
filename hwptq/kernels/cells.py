"""Vectors of a register tile that are finished together, and where the values of each lie in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import Expr, Flat, powers, shuffle
from hwptq.tir.requantize import Bounds


@dataclass(frozen=True)
class Output:
    """The rows that a tile is part of: `channels` values a pixel, in vectors of `lanes`.

    bounds: see `finish`; `whole`: the tile has all channels of its pixels.
    """

    channels: int
    lanes: int
    bounds: Bounds | None
    whole: bool

    @property
    def even(self) -> bool:
        """Whether vectors of neighbouring channels stand side by side."""
        return self.channels % self.lanes == 0


@dataclass(frozen=True)
class Held:
    """Vectors of an array packed by channel that are loaded once for many pixels."""

    vectors: tuple[Expr, ...]

    @classmethod
    def of(cls, array: Flat, v0: Expr, count: int, lanes: int) -> Held:
        """The `count` vectors from vector v0 on."""
        return cls(tuple(T.bind(array.load((v0 + v) * lanes, lanes)) for v in range(count)))


@dataclass(frozen=True)
class Run:
    """`count` values from `channel` of pixel number `pixel` on, in `lanes` lanes from lane `first`."""

    pixel: int
    channel: Expr
    first: int
    lanes: int
    count: int


@dataclass(frozen=True)
class Cells:
    """Some vectors, (pixel, vector) each, of a tile whose first vector of channels is `v0`."""

    group: Sequence[tuple[int, int]]
    v0: Expr
    output: Output

    def channels(self, array: Flat | Held) -> Expr:
        """The elements of an array packed by channel, multipliers for instance, for all lanes."""
        if isinstance(array, Held):
            return joined([array.vectors[vector] for _, vector in self.group])
        lanes = self.output.lanes
        runs = _runs(self.group, even=True, joined=False)
        return joined([T.bind(array.load((self.v0 + run[0][1]) * lanes, len(run) * lanes)) for run in runs])

    def elements(self, array: Flat, pixels: Sequence[Expr]) -> Expr:
        """The elements of a tensor [pixel, channel] for all lanes; `pixels` are the offsets of its pixels."""
        parts: list[Expr] = []
        order: list[int] = []
        for run in self.runs():
            taken = sum(int(part.ty.dtype.lanes) for part in parts)
            order += [taken + min(lane, run.count - 1) for lane in range(run.lanes)]
            at = pixels[run.pixel] + run.channel
            for size in powers(run.count, 1 << (run.count.bit_length() - 1)):
                parts.append(T.bind(array.load(at, size)))
                at = at + size
        if order == list(range(len(order))):
            return joined(parts)
        return shuffle(parts * -(-self.output.lanes // self.output.channels), order)

    def runs(self) -> Iterator[Run]:
        """The vectors, those together that stand side by side."""
        lanes, first = self.output.lanes, 0
        for run in _runs(self.group, self.output.even, self.output.whole):
            pixel, vector = run[0]
            channel, count = (self.v0 + vector) * lanes, len(run) * lanes
            if self.output.channels < lanes:
                channel, count = 0, self.output.channels
            elif not self.output.even:
                channel = T.min(channel, self.output.channels - lanes)
            yield Run(pixel, channel, first, len(run) * lanes, count)
            first += len(run) * lanes


def joined(vectors: Sequence[Expr]) -> Expr:
    """One vector after the other."""
    if len(vectors) == 1:
        return vectors[0]
    return shuffle(vectors, range(sum(int(v.ty.dtype.lanes) for v in vectors)))


def _runs(group: Sequence[tuple[int, int]], even: bool, joined: bool) -> list[list[tuple[int, int]]]:
    """The cells whose vectors stand side by side in memory; also of several pixels if `joined`."""
    runs: list[list[tuple[int, int]]] = []
    for cell in group:
        if runs and even and (joined or runs[-1][0][0] == cell[0]):
            runs[-1].append(cell)
        else:
            runs.append([cell])
    return runs
