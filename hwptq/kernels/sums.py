"""The registers that a tile sums in: a vector of lanes, or each lane in a scalar register of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import Expr, Flat, local


@dataclass(frozen=True)
class Apart:
    """int32 sums, each a scalar; they become a vector, and back, in memory that LLVM makes registers."""

    lanes: Sequence[Flat]

    def load(self, offset: Expr, lanes: int = 1) -> Expr:
        """All of them as one vector."""
        together = local(lanes, "int32")
        for i, lane in enumerate(self.lanes):
            together.store(i, lane.load(0))
        return T.bind(together.load(0, lanes))

    def store(self, offset: Expr, value: Expr, lanes: int = 1) -> None:
        """Set all of them to the lanes of a vector."""
        together = local(lanes, "int32")
        together.store(0, value, lanes)
        for i, lane in enumerate(self.lanes):
            lane.store(0, together.load(i))


def sums(lanes: int, apart: bool) -> Flat | Apart:
    """Registers for so many sums."""
    return Apart([local(1, "int32") for _ in range(lanes)]) if apart else local(lanes, "int32")
