"""The sums of a tile over the upper bytes of int16 activations and over the lower ones, put together.

See halfword_bytes: where sums are shortened, those over upper bytes wait beside the registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import Expr, constant, dtype_of

from .halfword_bytes import BYTE


class Register(Protocol):
    """int32 sums in registers: a vector of lanes."""

    def load(self, offset: Expr, lanes: int = 1) -> Expr: ...

    def store(self, offset: Expr, value: Expr, lanes: int = 1) -> None: ...


def begin_lower(
    acc: Sequence[Register], start: Sequence[Expr], lanes: int, shortened: int
) -> list[Expr]:  # fmt: skip
    """Registers hold sums over upper bytes, and then what those over lower ones begin with, `start` of each.

    Gives what `both` is to add: nothing where the sums are not shortened, as it is in `start` then.
    """
    moved = [_moved_up(cell.load(0, lanes), BYTE - shortened, lanes) for cell in acc]
    for cell, first, upper in zip(acc, start, moved, strict=True):
        cell.store(0, first if shortened else _sum(upper, first, lanes), lanes)
    return moved if shortened else []


def both(lower: Sequence[Expr], upper: Sequence[Expr], lanes: int, shortened: int) -> list[Expr]:
    """The shortened sums over all of x; `upper` is what begin_lower gave."""
    if not shortened:
        return list(lower)
    by = constant(shortened, "int32", lanes)
    return [_sum(u, T.shift_right(low, by), lanes) for low, u in zip(lower, upper, strict=True)]


def _moved_up(value: Expr, by: int, lanes: int) -> Expr:
    """value * 2^by, modulo 2^32."""
    unsigned = T.reinterpret(dtype_of("uint32", lanes), value)
    moved = T.shift_left(unsigned, constant(by, "uint32", lanes)) if by else unsigned
    return T.bind(T.reinterpret(dtype_of("int32", lanes), moved))


def _sum(a: Expr, b: Expr, lanes: int) -> Expr:
    """a + b, modulo 2^32."""
    unsigned = dtype_of("uint32", lanes)
    total = T.reinterpret(unsigned, a) + T.reinterpret(unsigned, b)
    return T.bind(T.reinterpret(dtype_of("int32", lanes), total))
