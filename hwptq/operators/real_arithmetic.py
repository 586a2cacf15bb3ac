"""Sums, differences and products of float32 tensors that broadcast, in vectors: one rounding a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from hwptq.ir.operator import Operator
from hwptq.tir.broadcast import Broadcast
from hwptq.tir.builder import Expr, Flat, loop, share, share_spans, spans, splat, unravel
from hwptq.tir.kernel import TensorType
from hwptq.tir.vector_unit import VectorUnit

#: Functions of two values, of arrays and of expressions alike.
FUNCTIONS: Mapping[str, Callable[..., Expr]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
}


@dataclass(frozen=True)
class RealArithmetic(Operator):
    """(a float32, b float32), which broadcast -> float32 of the shape of both. function: one of FUNCTIONS."""

    kind: ClassVar[str] = "real_arithmetic"
    without_rule: ClassVar[str] = "sums and products that stay in float"
    by_value: ClassVar[bool] = True
    in_float: ClassVar[bool] = True
    function: str

    @property
    def activations(self) -> int:
        return 2

    def reference(self, a, b) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # as a device, which says nothing
            return np.asarray(FUNCTIONS[self.function](a, b))

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        form = Broadcast.of([t.shape for t in inputs], out.shape)
        *outer, inner = form.extents
        width, work = unit.float_width(inner), unit.shared(prod(out.shape))

        def emit(a: Flat, b: Flat, y: Flat) -> None:
            def block(at: Sequence[Expr], i: Expr, lanes: int) -> None:
                loaded = [
                    x.load(form.offset(n, [*at, i]), lanes)
                    if form.reads_along(n)
                    else splat(x.load(form.offset(n, [*at, i])), lanes)
                    for n, x in enumerate((a, b))
                ]
                y.store(form.place([*at, i]), FUNCTIONS[self.function](*loaded), lanes)

            if not outer:
                share_spans(inner, width, work, lambda i, lanes, _: block([], i, lanes))
                return

            def rows(first: Expr, count: Expr) -> None:
                loop(count, lambda r: row(unravel(first + r, outer)))

            def row(at: Sequence[Expr]) -> None:
                spans(inner, width, lambda i, lanes, _: block(at, i, lanes))

            share(prod(outer), work, rows)

        return emit

    def element_by_element(self, unit: VectorUnit) -> bool:
        return unit.float_lanes == 1
