"""Rows of a cache that a prompt writes, from a position on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
import tvm
from tvm.script.ir_builder import tirx as T

from hwptq.ir.operator import Operator, Shape
from hwptq.tir.builder import TEMPLATE, Expr, Flat, cast, constant, loop, nest, primfunc
from hwptq.tir.kernel import TensorType
from hwptq.tir.vector_unit import VectorUnit


@dataclass(frozen=True)
class WriteRows(Operator):
    """(past [..., N, ...], new [..., T, ...] of its dtype, position, count: integers of one element each)
    -> past, but with new[t] at row position + t for each t < count; rows outside of it are left out.

    axis: that of the rows, from the end.
    """

    kind: ClassVar[str] = "write_rows"
    without_rule: ClassVar[str] = "what a prompt writes into caches"
    in_float: ClassVar[bool] = True
    axis: int

    @property
    def activations(self) -> int:
        return 4

    def reference(self, past, new, position, count) -> np.ndarray:
        rows, first = past.shape[self.axis], int(np.reshape(position, ()))
        written = range(min(int(np.reshape(count, ())), new.shape[self.axis]))
        out, pairs = past.copy(), [(first + t, t) for t in written if 0 <= first + t < rows]
        to, of = np.moveaxis(out, self.axis, 0), np.moveaxis(new, self.axis, 0)
        for row, t in pairs:
            to[row] = of[t]
        return out

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        write = self._writes(inputs[0].shape, inputs[1].shape, inputs[2].dtype, inputs[3].dtype)

        def emit(past: Flat, new: Flat, position: Flat, count: Flat, y: Flat) -> None:
            loop(y.size, lambda i: y.store(i, past.load(i)))
            write(new, position, count, y)

        return emit

    def in_place(self, inputs: Sequence[TensorType]) -> tvm.tirx.PrimFunc:
        """(new, position, count, past): it writes where the cache lies. inputs: as above."""
        past, *others = inputs
        write = self._writes(past.shape, others[0].shape, others[1].dtype, others[2].dtype)
        return primfunc([*others, past], {TEMPLATE: self.kind}, write)

    def _writes(
        self, past: Shape, new: Shape, counted: str, limited: str
    ) -> Callable[[Flat, Flat, Flat, Flat], None]:
        """The code that writes rows of `new` into a cache; counted, limited: dtypes of position and count."""
        at = len(past) + self.axis
        outer, rows, tokens, inner = prod(past[:at]), past[at], new[at], prod(past[at + 1 :])

        def emit(source: Flat, position: Flat, count: Flat, cache: Flat) -> None:
            def token(o: Expr, t: Expr) -> None:
                row = T.bind(position.load(0) + cast(t, counted))
                there = T.And(row >= constant(0, counted), row < constant(rows, counted))
                with T.If(T.And(there, cast(t, limited) < count.load(0))), T.Then():
                    to = T.bind((o * rows + cast(row, "int32")) * inner)
                    of = (o * tokens + t) * inner
                    loop(inner, lambda i: cache.store(to + i, source.load(of + i)))

            nest((outer, tokens), token)

        return emit
