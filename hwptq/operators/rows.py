"""Activations whose rows (tokens) get a scale each when they are computed, and dense layers on them.

    s = max|x| of the row / 127      codes = round_half_even(x * (1 / s))      y = fma(acc * s_w, s, bias)

Divisions, products and the fma are of float32 and round once. max|x| is kept within [2^-100, 2^120], so that
rows of zeros have codes of zero, and 1 / s is a normal number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.ir.composite import Composite
from hwptq.ir.dataflow import op_name, shape_of
from hwptq.ir.operator import Operator, Shape, along_rows, integer_operator
from hwptq.ir.provenance import Origin, Part
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.operand import NotInteger
from hwptq.quant.fixed_point import ACCUMULATOR_LIMIT
from hwptq.quant.fma import fma
from hwptq.tir.builder import (
    Expr,
    Flat,
    cast,
    clamp,
    constant,
    exact_float32,
    local,
    loop,
    share,
    spans,
    splat,
)
from hwptq.tir.float_steps import fma as fused
from hwptq.tir.kernel import TensorType
from hwptq.tir.vector_unit import VectorUnit

from .dense import DenseFloat
from .group_dense import GroupDense, grouped_rows

LEAST, MOST = 2.0**-100, 2.0**120
QMAX = 127
_COST = 4  # multiply-accumulates that take as long as an element


class _RowOperator(Operator):
    """What works row by row of the last axis, in vectors of float32."""

    without_rule: ClassVar[str] = "where rows get a scale each"

    def element_by_element(self, unit: VectorUnit) -> bool:
        return unit.float_lanes == 1

    def runs_along(self, axis: int, inputs: Sequence[Shape]) -> tuple[int | None, ...] | None:
        return along_rows(axis, self.activations)


def _each_row(shape: Sequence[int], unit: VectorUnit, row: Callable[[Expr, Expr], None]) -> None:
    """row(number, offset of its first element) of every row, in parts for threads."""
    *_, width = shape
    rows = int(np.prod(shape[:-1], dtype=np.int64))

    def part(first: Expr, count: Expr) -> None:
        loop(count, lambda i: row(first + i, (first + i) * width))

    share(rows, unit.shared(_COST * rows * width), part)


@dataclass(frozen=True)
class RowScale(_RowOperator):
    """(x float32 [..., K]) -> the scale of each row, float32 [..., 1]."""

    kind: ClassVar[str] = "row_scale"

    def reference(self, x) -> np.ndarray:
        reach = np.abs(x).max(axis=-1, keepdims=True)
        return np.clip(reach, np.float32(LEAST), np.float32(MOST)) / np.float32(QMAX)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        shape = inputs[0].shape
        width = unit.float_width(shape[-1])

        def emit(x: Flat, y: Flat) -> None:
            def row(number: Expr, start: Expr) -> None:
                most = local(width, "float32")
                most.store(0, constant(LEAST, "float32", width), width)

                def block(at: Expr, lanes: int, _: int) -> None:
                    value = T.bind(x.load(start + at, lanes))
                    reach = T.max(value, constant(0.0, "float32", lanes) - value)
                    most.store(0, T.max(most.load(0, lanes), reach), lanes)

                spans(shape[-1], width, block)
                reach = most.load(0)
                for i in range(1, width):
                    reach = T.max(reach, most.load(i))
                y.store(number, T.min(reach, constant(MOST, "float32")) / exact_float32(QMAX))

            _each_row(shape, unit, row)

        return emit


@dataclass(frozen=True)
class RowQuantize(_RowOperator):
    """(x float32 [..., K], scales float32 [..., 1]) -> int8 codes in [-127, 127]."""

    kind: ClassVar[str] = "row_quantize"

    @property
    def activations(self) -> int:
        return 2

    def reference(self, x, scale) -> np.ndarray:
        codes = np.rint(x * (np.float32(1) / scale))
        return np.clip(codes, -QMAX, QMAX).astype(np.int8)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        shape = inputs[0].shape

        def emit(x: Flat, scale: Flat, y: Flat) -> None:
            def row(number: Expr, start: Expr) -> None:
                inverse = T.bind(exact_float32(1.0) / scale.load(number))

                def block(at: Expr, lanes: int, _: int) -> None:
                    steps = T.nearbyint(x.load(start + at, lanes) * splat(inverse, lanes))
                    ends = (constant(float(v), "float32", lanes) for v in (-QMAX, QMAX))
                    codes = T.bind(cast(clamp(steps, *ends), "int32", lanes))
                    y.store(start + at, cast(codes, "int8", lanes), lanes)

                spans(shape[-1], unit.float_width(shape[-1]), block)

            _each_row(shape, unit, row)

        return emit


@dataclass(frozen=True)
class RowRescale(_RowOperator):
    """(t float32 [..., O], scales float32 [..., 1], bias float32 [O]) -> fma(t, scale of the row, bias),
    clamped to [lo, hi]."""

    kind: ClassVar[str] = "row_rescale"
    lo: float
    hi: float

    @property
    def activations(self) -> int:
        return 2

    def reference(self, t, scale, bias) -> np.ndarray:
        y = fma(t, np.broadcast_to(scale, t.shape), np.broadcast_to(bias, t.shape))
        return np.clip(y, np.float32(self.lo), np.float32(self.hi))

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        def emit(t: Flat, scale: Flat, bias: Flat, y: Flat) -> None:
            def row(number: Expr, start: Expr) -> None:
                by = T.bind(scale.load(number))

                def block(at: Expr, lanes: int, _: int) -> None:
                    value = fused(t.load(start + at, lanes), splat(by, lanes), bias.load(at, lanes), lanes)
                    y.store(start + at, self._clamped(value, lanes), lanes)

                spans(out.shape[-1], unit.float_width(out.shape[-1]), block)

            _each_row(out.shape, unit, row)

        return emit

    def _clamped(self, value: Expr, lanes: int) -> Expr:
        if np.isfinite(self.hi):
            value = T.min(value, constant(self.hi, "float32", lanes))
        return T.max(value, constant(self.lo, "float32", lanes)) if np.isfinite(self.lo) else value


def row_codes(e: Emitter, expr: Any) -> tuple[Any, Any] | None:
    """(codes, scales) where `expr` is their product: a tensor with a scale for each row."""
    product: Any = e.values.get(expr)
    if op_name(product) != "multiply":
        return None
    cast_back: Any = e.values.get(product.args[0])
    if op_name(cast_back) != "astype":
        return None
    codes = cast_back.args[0]
    made = integer_operator(e.mod, e.values.get(codes))
    return (codes, product.args[1]) if isinstance(made, RowQuantize) else None


def lower_dense(e: Emitter, unit: Composite, origin: Origin) -> Any:
    """A dense layer on such a tensor. Raises NotInteger with the reason where it has no integer form."""
    found = row_codes(e, unit.args[0])
    if found is None:
        raise NotInteger("its input has no scale for each row")
    if any(np.size(bound) > 1 for bound in unit.bounds):
        raise NotInteger("its clamp differs by channel")
    op, constants = _sums_of(e, unit)
    shape, (codes, scale) = shape_of(unit.result), map(e.r.get, found)
    sums = e.call(op, [codes], constants, shape, "float32", origin.with_part(Part.SUMS))
    zeros = np.zeros(shape[-1], np.float32)
    bias = zeros if unit.bias is None else np.broadcast_to(unit.bias, zeros.shape).astype(np.float32)
    rescale = RowRescale(*(float(bound) for bound in unit.bounds))
    return e.call(rescale, [sums, scale], (bias,), shape, "float32", origin)


def _sums_of(e: Emitter, unit: Composite) -> tuple[Operator, tuple[np.ndarray, ...]]:
    """The operator of a layer without the scales of its rows, with its constants."""
    rows = grouped_rows(e.mod, e.values.get(unit.args[1]))
    if rows is not None and shape_of(unit.args[1]) == (rows.depth, len(rows.codes)):
        return GroupDense(rows.weight, rows.size, rows.depth), rows.arrays
    w = e.operand(unit.args[1])
    if not w.is_constant or w.tensor.ndim != 2:
        raise NotInteger("its weight is no matrix")
    depth, channels = w.tensor.shape
    if depth * QMAX * 128 > ACCUMULATOR_LIMIT:
        raise NotInteger(f"sums of {depth} products need more than 32 bits")
    scales = np.broadcast_to(w.scale, (channels,)).astype(np.float32)
    return DenseFloat(), (np.ascontiguousarray(w.tensor.T), np.zeros(channels, np.int32), scales)
