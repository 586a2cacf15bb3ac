"""What a multiply-accumulate instruction does: all that the loops around it need to know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hwptq.tir.builder import Expr


@dataclass(frozen=True)
class Mac:
    """acc int32[rows][lanes] += sum over k of activation[row][k] * weight[lane][k]; a row is a pixel.

    `pick(loaded, u, groups)` makes the activation operand from group u of `groups` groups of k elements that
    were loaded at once from each of `rows` pixels; `accumulate(acc, activation, weight)` is the instruction.
    """

    rows: int
    lanes: int
    k: int
    groups: int  # groups of k activations in the widest load, a power of two
    activation: str  # dtype of the packed activations
    weight: str  # dtype of the weight operand; its values are stored as int8, or two int4 a byte
    pick: Callable[[list[Expr], int, int], Expr]
    accumulate: Callable[[Expr, Expr, Expr], Expr]
    aligned: bool = False  # activations are loaded at multiples of k only
    assembly: str = ""  # the instruction in assembly language
    unroll: int = 1  # groups of k that one turn of the loop takes, at the least
    apart: bool = False  # each lane is a scalar of its own, to which `accumulate` adds k products
    halfwords: bool = False  # activations may be int16
    gather: str = ""  # loads elements from anywhere, see gather_bytes; "" = it can't

    def groups_of(self, run: int) -> int:
        """Groups of k in a run."""
        return -(-run // self.k)

    def slack(self, run: int) -> int:
        """Elements that the loads of a run reach beyond it."""
        return self.groups_of(run) * self.k - run
