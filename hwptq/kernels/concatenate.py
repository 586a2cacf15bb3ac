"""Concatenation by copies of whole rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from hwptq.tir.builder import TEMPLATE, Expr, Flat, loop, primfunc, share
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.stored import Stored
from hwptq.tir.vector_unit import VectorUnit

_COST = 8  # multiply-accumulates that take as long as moving a byte


def concatenate(inputs: Sequence[TensorType], axis: int, out: TensorType, unit: VectorUnit) -> Step:
    """The step that joins int8 tensors along `axis`, in a layout without a border."""
    rows = prod(out.shape[:axis])
    sizes = [prod(t.shape[axis:]) for t in inputs]
    pitch = sum(sizes)

    def emit(*tensors: Flat) -> None:
        *sources, y = tensors
        joined = Stored(y, out)

        def row(i: Expr) -> None:
            at = 0
            for source, size in zip(sources, sizes, strict=True):
                unit.cover(size, _copy(source, i * size, joined, i * pitch + at))
                at += size

        def part(first: Expr, count: Expr) -> None:
            loop(count, lambda i: row(first + i))

        share(rows, unit.shared(_COST * prod(out.shape)), part)

    func = primfunc([*inputs, out], {TEMPLATE: "concatenate"}, emit)
    return Step(func, tuple(range(len(inputs))), out, "concatenate")


def _copy(source: Flat, start: Expr, y: Stored, at: Expr) -> Callable[[Expr, int, int], None]:
    return lambda i, n, count: y.store(at + i, source.load(start + i, n), n, count)
