"""What a fast kernel reads instead of its input: the image in the layout and dtype of its instruction.

It has the border, the operand type of the instruction, and `slack` elements behind the image where the last
load of a kernel may reach. What is read there meets weights of 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from tvm.script.ir_builder import tirx as T

from .builder import TEMPLATE, Expr, Flat, cast, constant, loop, nest, primfunc, share, unravel
from .convolution import Padding
from .kernel import Step, TensorType
from .vector_unit import VectorUnit

_COST = 60  # multiply-accumulates that take as long as moving a byte, also to another core
_SIGN_BIT = -128  # q xor 0x80 = q + 128 as uint8


@dataclass(frozen=True)
class Packing:
    """int8 x [N,H,W,C] (any rank without padding) -> flat `dtype`.

    `dtype`: int8; int16 with the same values; uint8 with the values + 128.
    """

    x: TensorType
    padding: Padding
    unit: VectorUnit
    slack: int = 0
    dtype: str = "int8"

    @property
    def needed(self) -> bool:
        """Whether x can't serve as it is."""
        return not self.padding.empty or bool(self.slack) or self.dtype != "int8"

    @property
    def parts(self) -> int:
        """How many threads' parts the work is cut into."""
        return self.unit.shared(_COST * prod(self.x.shape)) if len(self.x.shape) == 4 else 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, H, W, C of x; one row of all elements where there is no padding and nothing is shared."""
        flat = self.padding.empty and self.parts == 1
        n, h, w, c = (1, 1, 1, prod(self.x.shape)) if flat else self.x.shape
        return n, h, w, c

    @property
    def image(self) -> tuple[int, int]:
        """(H, W) of an image of x with its border."""
        return self.padding.around(self.x.shape[1:3]) if len(self.x.shape) == 4 else (1, 1)

    @property
    def elements(self) -> int:
        """Of the result."""
        n, h, w, c = self.shape
        return n * prod(self.padding.around((h, w))) * c + self.slack

    def emit(self, source: Flat, packed: Flat) -> None:
        """Code that packs all of x."""
        padding, (n, h, w, c) = self.padding, self.shape
        height, width = padding.around((h, w))
        first = (padding.top * width + padding.left) * c
        gap = (padding.left + padding.right) * c
        last = (padding.right + padding.bottom * width) * c

        def row(b: Expr, i: Expr) -> None:
            source_row, packed_row = (b * h + i) * w * c, (b * height + i) * width * c + first
            self.copy(source, source_row, packed, packed_row, w * c)

        def between(b: Expr, i: Expr) -> None:
            self.fill(packed, (b * height + i) * width * c + first + w * c, gap, padding.value)

        def ends(b: Expr) -> None:
            self.fill(packed, b * height * width * c, first, padding.value)
            self.fill(packed, (b + 1) * height * width * c - last, last, padding.value)

        def part(start: Expr, count: Expr) -> None:
            loop(count, lambda i: row(*unravel(start + i, (n, h))))

        def part_between(start: Expr, count: Expr) -> None:
            loop(count, lambda i: between(*unravel(start + i, (n, h - 1))))

        share(n * h, self.parts, part)
        if gap and h > 1:
            share(n * (h - 1), self.parts, part_between)
        if first or last:
            nest((n,), ends)
        self.fill(packed, n * height * width * c, self.slack, 0)

    def copy(self, source: Flat, start: Expr, packed: Flat, to: Expr, count: int) -> None:
        """Code that converts `count` elements."""
        self.unit.cover(
            count,
            lambda i, m, n: packed.store(to + i, _converted(source.load(start + i, m), self.dtype, m), m, n),
        )

    def fill(self, packed: Flat, at: Expr, count: int, value: int) -> None:
        """Code that writes `count` times the value of an int8."""
        stored = value + 128 if self.dtype == "uint8" else value
        if count:
            self.unit.cover(
                count, lambda i, m, n: packed.store(at + i, constant(stored, self.dtype, m), m, n)
            )


def pack_input(packing: Packing) -> Step | None:
    """The step that packs x; None where x serves as it is."""
    if not packing.needed:
        return None
    out = TensorType((packing.elements,), packing.dtype)
    func = primfunc([TensorType(packing.x.shape, "int8"), out], {TEMPLATE: "pack_input"}, packing.emit)
    return Step(func, (0,), out, "pack_input")


def _converted(value: Expr, dtype: str, lanes: int) -> Expr:
    if dtype == "uint8":
        return cast(T.bitwise_xor(value, constant(_SIGN_BIT, "int8", lanes)), "uint8", lanes)
    return value if dtype == "int8" else cast(value, dtype, lanes)
