"""Rows of a constant table by their numbers, in integers: what tokens mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import tvm
from tvm import relax
from tvm.script.ir_builder import tirx as T

from hwptq.ir.dataflow import constant as array_of
from hwptq.ir.dataflow import shape_of
from hwptq.ir.operator import Operator, Shape
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.layer import multipliers_of
from hwptq.lowering.operand import NotInteger
from hwptq.lowering.output import Output
from hwptq.lowering.rules import lowers
from hwptq.quant.fixed_point import requantize
from hwptq.tir.builder import Expr, Flat, cast, constant, splat
from hwptq.tir.kernel import TensorType
from hwptq.tir.requantize import Bounds, finish
from hwptq.tir.rows import each_row
from hwptq.tir.vector_unit import VectorUnit

from .rescale import rescaled

#: Of an int8 value: as far as an accumulator of 30 bits goes.
LEFT_SHIFT = 22
_COST = 2  # multiply-accumulates that take as long as a value


@dataclass(frozen=True)
class Embedding(Operator):
    """(index int32 or int64 [...], table int8 [V,C], multiplier int32 [V], shift int32 [V]) -> [..., C].

    requantize(row << 22) by the multiplier and shift of the row, in the dtype `out`. An index below 0 or
    beyond the table takes its first or last row.
    """

    kind: ClassVar[str] = "embedding"
    out_zero_point: int
    lo: int
    hi: int
    out: str

    def runs_along(self, axis: int, inputs: Sequence[Shape]) -> tuple[int | None, ...] | None:
        """The index has no axis of channels."""
        return None if axis == -1 else (axis + 1,)

    def reference(self, index, table, multiplier, shift) -> np.ndarray:
        row = np.clip(index, 0, len(table) - 1).astype(np.int64)
        acc = table[row].astype(np.int64) << LEFT_SHIFT
        factor, by = (t[row][..., None] for t in (multiplier, shift))
        return requantize(acc, factor, by, self.out_zero_point, self.lo, self.hi, self.out)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        index_dtype, (rows, count) = inputs[0].dtype, inputs[1].shape
        bounds = Bounds(self.out_zero_point, self.lo, self.hi, dtype=self.out)

        def emit(index: Flat, table: Flat, multiplier: Flat, shift: Flat, y: Flat) -> None:
            def one(at: list[Expr], number: Expr) -> None:
                last, first = (constant(v, index_dtype) for v in (rows - 1, 0))
                row = T.bind(cast(T.max(T.min(index.load(number), last), first), "int32"))
                factors = [T.bind(t.load(row)) for t in (multiplier, shift)]

                def block(at: Expr, width: int, stored: int) -> None:
                    wide = cast(table.load(row * count + at, width), "int32", width)
                    acc = T.bind(T.shift_left(wide, constant(LEFT_SHIFT, "int32", width)))
                    scales = [splat(f, width) for f in factors]
                    result = finish(acc, scales, bounds, width, unit.requantize)
                    y.store(number * count + at, result, width, stored)

                unit.cover(count, block)

            each_row(inputs[0].shape, unit, _COST * count, lambda: one)

        return emit


def _is_table(call: Any) -> bool:
    table, axis = array_of(call.args[0]), call.attrs.axis
    return table is not None and table.ndim == 2 and axis is not None and int(axis) == 0


def _why_not(call: Any) -> str | None:
    if _is_table(call) or (array_of(call.args[0]) is None and call.attrs.axis is not None):
        return None
    return "a look-up of something else than rows of a constant table"


def _family(mod: tvm.IRModule, call: Any) -> str:
    """What reads a table, and what takes values of a tensor."""
    return "embedding" if _is_table(call) else "data_movement"


@lowers(
    "take", family=_family, makes=(Embedding,), why_not=_why_not, selects=lambda call: not _is_table(call)
)  # fmt: skip
def lower_take(e: Emitter, call: Any, out: Output) -> Any:
    """Rows of a constant table of int8, or values of a tensor."""
    table, index = e.operand(call.args[0]), e.r.get(call.args[1])
    if out.in_floats or out.real or table.format.is_float:
        raise NotInteger("a look-up of floats")
    if not table.is_constant:
        taken = e.r.emit(relax.Call(call.op, [table.tensor, index], call.attrs, call.ty_args))
        return rescaled(e, replace(table, tensor=taken, shape=shape_of(call)), out)
    if table.zero or table.tensor.ndim != 2 or call.attrs.axis is None or int(call.attrs.axis):
        raise NotInteger("a look-up of something else than rows of a constant table")
    rows = len(table.tensor)
    scale = np.broadcast_to(np.asarray(table.scale, np.float64), (rows,))
    multiplier, shift = multipliers_of(scale / (out.scale * 2.0**LEFT_SHIFT))
    op = Embedding(out.zero, *out.code_bounds(), out.dtype)
    constants = table.tensor, multiplier.astype(np.int32), shift.astype(np.int32)
    return e.call(op, [index], constants, shape_of(call), out.dtype, out.tensor)
