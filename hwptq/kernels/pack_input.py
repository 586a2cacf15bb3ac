"""The step in front of a fast kernel: copy an image into the layout that the kernel reads.

It adds the border, converts to the operand type of the instruction, and leaves `slack` elements behind the
image where the last load of a kernel may reach. What is read there meets weights of 0.
"""

from __future__ import annotations

from math import prod

from tvm.script.ir_builder import tirx as T

from .builder import TEMPLATE, Expr, Flat, cast, constant, loop, nest, primfunc, share, unravel
from .convolution import Padding
from .kernel import Step, TensorType
from .vector_unit import VectorUnit

_COST = 20  # multiply-accumulates that take as long as a byte
_SIGN_BIT = -128  # q xor 0x80 = q + 128 as uint8


def pack_input(
    x: TensorType, padding: Padding, unit: VectorUnit, slack: int = 0, dtype: str = "int8"
) -> Step | None:
    """The step int8 x [N,H,W,C] (any rank without padding) -> flat `dtype`; None where x serves as it is.

    `dtype`: int8; int16 with the same values; uint8 with the values + 128.
    """
    if padding.empty and not slack and dtype == "int8":
        return None
    parts = unit.shared(_COST * prod(x.shape)) if len(x.shape) == 4 else 1
    n, h, w, c = x.shape if parts > 1 or not padding.empty else (1, 1, 1, prod(x.shape))
    height, width = padding.around((h, w))
    out = TensorType((n * height * width * c + slack,), dtype)

    def emit(source: Flat, packed: Flat) -> None:
        first = (padding.top * width + padding.left) * c
        gap = (padding.left + padding.right) * c
        last = (padding.right + padding.bottom * width) * c

        def fill(at: Expr, count: int, value: int) -> None:
            if count:
                unit.cover(count, lambda i, m, n: packed.store(at + i, _constant(value, dtype, m), m, n))

        def row(b: Expr, i: Expr) -> None:
            source_row, packed_row = (b * h + i) * w * c, (b * height + i) * width * c + first
            unit.cover(
                w * c,
                lambda j, m, n: packed.store(
                    packed_row + j, _convert(source.load(source_row + j, m), dtype, m), m, n
                ),
            )

        def between(b: Expr, i: Expr) -> None:
            fill((b * height + i) * width * c + first + w * c, gap, padding.value)

        def ends(b: Expr) -> None:
            fill(b * height * width * c, first, padding.value)
            fill((b + 1) * height * width * c - last, last, padding.value)

        def part(start: Expr, count: Expr) -> None:
            loop(count, lambda i: row(*unravel(start + i, (n, h))))

        def part_between(start: Expr, count: Expr) -> None:
            loop(count, lambda i: between(*unravel(start + i, (n, h - 1))))

        share(n * h, parts, part)
        if gap and h > 1:
            share(n * (h - 1), parts, part_between)
        if first or last:
            nest((n,), ends)
        fill(n * height * width * c, slack, 0)

    func = primfunc([TensorType(x.shape, "int8"), out], {TEMPLATE: "pack_input"}, emit)
    return Step(func, (0,), out, "pack_input")


def _constant(value: int, dtype: str, lanes: int) -> Expr:
    return constant(value + 128 if dtype == "uint8" else value, dtype, lanes)


def _convert(value: Expr, dtype: str, lanes: int) -> Expr:
    if dtype == "uint8":
        return cast(T.bitwise_xor(value, constant(_SIGN_BIT, "int8", lanes)), "uint8", lanes)
    return value if dtype == "int8" else cast(value, dtype, lanes)
