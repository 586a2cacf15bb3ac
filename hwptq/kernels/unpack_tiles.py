"""Weights of 4 bits, two a byte, made rows of registers that hold matrices."""

from __future__ import annotations

from math import prod

from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import Expr, Flat, constant, loop, workspace

from .tile_instructions import K
from .tile_plan import TilePlan


def unpacked(plan: TilePlan, packed: Flat, vectors: int) -> Flat:
    """Weights of a block of vectors, 16 times an int4 each, as rows of registers, in memory of its own.

    Each row is written once: where the upper half of the last one of a stretch holds none, it is left.
    """
    width, runs = plan.kernel.columns * K, prod(plan.conv.runs)
    memory = workspace(vectors * runs * plan.run_rows * width, "int8")

    def stretch(run: Expr) -> None:
        def row(r: Expr, both: bool = True) -> None:
            found = T.bind(packed.load((run * plan.stored_run_rows + r) * width, width))
            at = (run * plan.run_rows + 2 * r) * width
            memory.store(at, T.shift_left(found, constant(4, "int8", width)), width)
            if both:
                memory.store(at + width, T.bitwise_and(found, constant(-16, "int8", width)), width)

        loop(plan.run_rows // 2, row)
        if plan.run_rows % 2:
            row(plan.run_rows // 2, both=False)

    loop(vectors * runs, stretch)
    return memory
