"""What a fast kernel reads instead of its input: the image in the layout of its instruction.

It takes a pass over the image where its producer could not write that layout at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from hwptq.tir.builder import TEMPLATE, WHOLE, Expr, Flat, Parts, loop, primfunc, share, unravel
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.layout import Layout, Padding
from hwptq.tir.stored import Stored
from hwptq.tir.vector_unit import VectorUnit

_COST = 60  # multiply-accumulates that take as long as moving a byte, also to another core


@dataclass(frozen=True)
class Packing:
    """int8 or int16 x [N,H,W,C] (any rank without borders) -> the same in the layout `wanted`."""

    x: TensorType
    wanted: Layout
    unit: VectorUnit

    @property
    def needed(self) -> bool:
        """Whether x can't serve as it is."""
        return not replace(self.x.layout, dtype=self.x.stored.dtype).serves(self.wanted)

    @property
    def out(self) -> TensorType:
        """The packed tensor."""
        return TensorType(self.x.shape, self.x.dtype, self.wanted)

    @property
    def read(self) -> TensorType:
        """What the kernel reads."""
        return self.out if self.needed else self.x

    @property
    def padding(self) -> Padding:
        return self.wanted.padding

    @property
    def dtype(self) -> str:
        return self.wanted.dtype

    @property
    def image(self) -> tuple[int, int]:
        """(H, W) of an image of x with its border."""
        return self.wanted.image(self.x.shape) if len(self.x.shape) == 4 else (1, 1)

    @property
    def elements(self) -> int:
        """Of the result."""
        return self.wanted.elements(self.x.shape)

    @property
    def slack(self) -> int:
        return self.wanted.slack

    @property
    def parts(self) -> Parts:
        """How many threads' parts the work is cut into."""
        return self.unit.shared(_COST * prod(self.x.shape)) if len(self.x.shape) == 4 else WHOLE

    def emit(self, source: Flat, packed: Flat) -> None:
        """Code that packs all of x."""
        x, out = Stored(source, self.x), Stored(packed, self.out)
        if self.x.layout.padding.empty and self.padding.empty and self.parts == WHOLE:
            self.copy(x, 0, out, 0, prod(self.x.shape))
            return
        n, h, w, c = self.x.shape

        def part(start: Expr, count: Expr) -> None:
            def row(i: Expr) -> None:
                b, at = unravel(start + i, (n, h))
                self.copy(x, x.pixel(b, at, 0), out, out.pixel(b, at, 0), w * c)

            loop(count, row)

        share(n * h, self.parts, part, out.border(self.unit))

    def copy(self, x: Stored, start: Expr, packed: Stored, to: Expr, count: int) -> None:
        """Code that converts `count` elements."""
        self.unit.cover(count, lambda i, m, n: packed.store(to + i, x.load(start + i, m), m, n))


def pack_input(packing: Packing) -> Step | None:
    """The step that packs x; None where x serves as it is."""
    if not packing.needed:
        return None
    func = primfunc([packing.x, packing.out], {TEMPLATE: "pack_input"}, packing.emit)
    return Step(func, (0,), packing.out, "pack_input")
