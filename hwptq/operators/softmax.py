"""Softmax over the last axis in integers; masked values take no part, whatever is added to hide them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tvm import relax
from tvm.script.ir_builder import tirx as T

from hwptq.formats import INT8
from hwptq.ir.composite import Composite
from hwptq.ir.dataflow import bindings, op_name, shape_of
from hwptq.ir.dataflow import constant as array_of
from hwptq.ir.operator import Hiding, Operator, Shape, along_rows
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.operand import NotInteger, Operand
from hwptq.lowering.output import Output
from hwptq.lowering.rules import lowers
from hwptq.quant.integer_softmax import (
    FRACTION_BITS,
    LONGEST,
    ONE,
    POLYNOMIAL,
    RECIPROCAL,
    SCALE,
    SHIFT,
    ZERO_POINT,
    Exponent,
    exponent,
    probability_of_alike,
    softmax,
)
from hwptq.tir.builder import Expr, Flat, cast, constant, splat, workspace
from hwptq.tir.kernel import TensorType
from hwptq.tir.loops import broadcast_strides
from hwptq.tir.requantize import Bounds, narrowed
from hwptq.tir.rows import each_row, every_element, largest, total
from hwptq.tir.vector_unit import VectorUnit

from .lookup import emit_table

_COST = 8  # multiply-accumulates that take as long as a value
_MOST_HALVINGS = 30


@dataclass(frozen=True)
class Softmax(Operator):
    """(x int8 or int16 [..., n], hidden int8 broadcast to it if `masked`) -> int8 [..., n], scale 1/256, zero
    point -128; see quant/integer_softmax.py. Where hidden is not 0, the result is 0; where a row is hidden
    whole, 0 or, if `alike`, one probability for all.
    """

    kind: ClassVar[str] = "softmax"
    factor: int
    shift: int
    reach: int
    masked: bool = False
    alike: bool = False

    @property
    def activations(self) -> int:
        return 1 + self.masked

    def runs_along(self, axis: int, inputs: Sequence[Shape]) -> tuple[int | None, ...] | None:
        return along_rows(axis, self.activations)

    @property
    def hides(self) -> Hiding | None:
        return Hiding(1, {0: -1}, ZERO_POINT) if self.masked else None

    def reference(self, x, *hidden) -> np.ndarray:
        masked = hidden[0] != 0 if hidden else None
        return softmax(x, Exponent(self.factor, self.shift, self.reach), masked, self.alike)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        *lead, count = out.shape
        steps = broadcast_strides(inputs[1].shape, out.shape) if self.masked else ()

        def emit(x: Flat, *rest: Flat) -> None:
            *hidden, y = rest

            def rows() -> Callable[[list[Expr], Expr], None]:
                e = workspace(-(-count // unit.lanes) * unit.lanes, "int16")  # a last vector may be whole

                def row(at: list[Expr], number: Expr) -> None:
                    mask = None
                    if hidden:
                        first = sum(i * s for i, s in zip(at, steps, strict=False))
                        mask = _Mask(hidden[0].behind(first), steps[-1])
                    self._row(x.behind(number * count), mask, e, y.behind(number * count), count, unit)

                return row

            each_row(lead, unit, _COST * count, rows)

        return emit

    def _row(self, x: Flat, mask: _Mask | None, e: Flat, y: Flat, count: int, unit: VectorUnit) -> None:
        """Three ways along a row: its largest value, the exponentials, the probabilities."""
        found = largest(unit.lanes)

        def compare(at: Expr, width: int) -> None:
            values = cast(x.load(at, width), "int32", width)
            found.add(values if mask is None else mask.applied(values, -(2**15), at, width), width)

        every_element(count, unit, compare)
        top, summed = found.result(), total(unit.lanes)

        def exponentiate(at: Expr, width: int) -> None:
            difference = splat(top, width) - cast(x.load(at, width), "int32", width)
            values = self._exponential(T.max(difference, constant(0, "int32", width)), width)
            values = T.bind(values if mask is None else mask.applied(values, 0, at, width))
            e.store(at, cast(values, "int16", width), width)
            summed.add(values, width)

        every_element(count, unit, exponentiate)
        # where the whole row is masked every e is 0, and so is every p before what is added
        divisor = T.max(summed.result(), constant(1, "int32"))
        reciprocal = T.bind(T.truncdiv(constant(RECIPROCAL, "int32"), divisor))
        bounds = Bounds(ZERO_POINT, -128, 127)
        added = None
        if self.alike:
            nothing = summed.result() == constant(0, "int32")
            p_alike = constant(probability_of_alike(count), "int32")
            added = T.bind(T.Select(nothing, p_alike, constant(0, "int32")))

        def scale(at: Expr, width: int, stored: int) -> None:
            product = cast(e.load(at, width), "int32", width) * splat(reciprocal, width)
            p = _halved(product, SHIFT, width)
            p = T.bind(p if added is None else p + splat(added, width))
            y.store(at, narrowed(p, bounds, width, unit.requantize), width, stored)

        unit.cover(count, scale)

    def _exponential(self, difference: Expr, lanes: int) -> Expr:
        """e of differences, int32."""
        product = T.min(difference, constant(self.reach, "int32", lanes)) * constant(
            self.factor, "int32", lanes
        )
        t = T.bind(_halved(product, self.shift, lanes))
        f = T.bind(T.bitwise_and(t, constant(2**FRACTION_BITS - 1, "int32", lanes)))
        u: Expr = constant(POLYNOMIAL[0], "int32", lanes)
        for coefficient in (*POLYNOMIAL[1:], ONE):
            u = constant(coefficient, "int32", lanes) - _halved(u * f, FRACTION_BITS, lanes)
        u = T.bind(u)
        whole = T.shift_right(t, constant(FRACTION_BITS, "int32", lanes))
        whole = T.min(whole, constant(_MOST_HALVINGS, "int32", lanes))
        one = constant(1, "int32", lanes)
        return T.shift_right(T.shift_right(u + u, whole) + one, one)


class _Mask:
    """The mask of a row, one value for each element or one for all."""

    def __init__(self, values: Flat, stride: int):
        self.values, self.stride = values, stride

    def applied(self, x: Expr, hidden: int, at: Expr, lanes: int) -> Expr:
        """`x`, or `hidden` where the mask is set."""
        mask = self.values.load(at, lanes) if self.stride else splat(self.values.load(0), lanes)
        clear = mask == constant(0, "int8", lanes)
        return T.Select(clear, x, constant(hidden, "int32", lanes))


def _halved(x: Expr, by: int, lanes: int) -> Expr:
    """x / 2^by of values that are not negative, halves up."""
    if not by:
        return x
    return T.shift_right(x + constant(2 ** (by - 1), "int32", lanes), constant(by, "int32", lanes))


def _why_not(call: Any) -> str | None:
    rank = len(shape_of(call))
    if int(call.attrs.axis) % rank != rank - 1:
        return "a softmax over another axis than the last"
    return None if shape_of(call)[-1] <= LONGEST else f"a softmax of more than {LONGEST} values"


@lowers("nn.softmax", family="softmax", makes=(Softmax,), why_not=_why_not, output_range=(0.0, 255 * SCALE))
def lower_softmax(e: Emitter, call: Any, out: Output) -> Any:
    """A softmax over the last axis."""
    reason = _why_not(call)
    if reason:
        raise NotInteger(reason)
    return _lowered(e, e.operand(call.args[0]), None, False, out)


@lowers("composite.softmax", family="softmax", makes=(Softmax,), output_range=(0.0, 255 * SCALE))
def lower_masked_softmax(e: Emitter, unit: Composite, out: Output) -> Any:
    """A softmax of (x, hidden): see FuseMasks."""
    x, hidden = unit.result.args
    *_, last = [value for _, value in bindings(e.mod[unit.result.op]) if isinstance(value, relax.Call)]
    alike = op_name(last) == "nn.softmax"  # else zeros take the place of what it gives
    values = array_of(hidden)
    mask = e.r.emit(relax.op.astype(e.r.get(hidden), "int8")) if values is None else values.astype(np.int8)
    return _lowered(e, e.operand(x), mask, alike, out)


def _lowered(e: Emitter, x: Operand, mask: Any, alike: bool, out: Output) -> Any:
    if out.in_floats or out.real or x.format.is_float or x.is_constant:
        raise NotInteger("a softmax of floats")
    by = exponent(float(x.scale))
    op = Softmax(by.factor, by.shift, by.reach, masked=mask is not None, alike=alike)
    tensors = [x.tensor] if mask is None else [x.tensor, mask]
    direct = (out.dtype, out.scale, out.zero) == (INT8.held, SCALE, ZERO_POINT)
    codes = e.call(op, tensors, (), x.shape, INT8.held, out.tensor if direct else None)
    if direct:
        return codes
    probabilities = Operand(codes, np.asarray(SCALE, np.float32), ZERO_POINT, x.shape)
    return emit_table(e, probabilities, probabilities.points, out)
