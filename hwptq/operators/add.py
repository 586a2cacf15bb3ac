"""Sums and differences of two tensors, in integers and in floats. An Add is short where it can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.ir.composite import Composite, read_composite
from hwptq.ir.dataflow import op_name
from hwptq.ir.operator import Operator
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.layer import factor_to, multiplier_of
from hwptq.lowering.output import Output
from hwptq.lowering.rules import lowers, rule_of
from hwptq.lowering.sources import is_float_layer
from hwptq.quant.fixed_point import STEPS
from hwptq.quant.float_values import value
from hwptq.quant.fma import fma
from hwptq.quant.scaled_sum import scaled_sum
from hwptq.quant.short_add import ShortAdd, short_add
from hwptq.tir.builder import Expr, cast, constant
from hwptq.tir.encoding import decoded
from hwptq.tir.kernel import TensorType
from hwptq.tir.layout import PLAIN
from hwptq.tir.loops import emit_binary
from hwptq.tir.requantize import Bounds, finish, narrowed
from hwptq.tir.vector_unit import VectorUnit

from .float_operator import FloatOperator, stored

#: The factors of both operands are in steps of 2^-20.
FRACTION_BITS = 20
#: The same where an operand is int16.
WIDE_FRACTION_BITS = 13
_OFFSETS = {"int8": 0, "uint8": 128}
_INT16 = 2**15 - 1
_LARGEST = 128  # of a value, and of an offset


class _Sum(Operator):
    """What sums share."""

    family: ClassVar[str] = "add"
    by_value: ClassVar[bool] = True

    @property
    def activations(self) -> int:
        return 2


@dataclass(frozen=True)
class Add(_Sum):
    """(a, b) -> broadcast shape; acc = (a - za) * a_factor + (b - zb) * b_factor, then requantize.

    The factors bring both operands to one scale, in steps of 2^-20 of the coarser one, or of 2^-13 where an
    operand is int16; a negative factor subtracts. out: the dtype of the result.
    """

    kind: ClassVar[str] = "add"
    a_zero_point: int
    b_zero_point: int
    a_factor: int
    b_factor: int
    multiplier: int
    shift: int
    out_zero_point: int
    lo: int
    hi: int
    out: str = "int8"
    rounding: str = STEPS

    def reference(self, a, b) -> np.ndarray:
        return scaled_sum(self, a, b)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        narrow = all(t.dtype == PLAIN.dtype for t in (*inputs, out))

        def vector(a: Expr, b: Expr, lanes: int) -> Expr:
            if narrow:
                return added(self, Addend(a), Addend(b), lanes, unit)
            return factored_sum(self, Addend(a), Addend(b), lanes, unit)

        return emit_binary(inputs, out, unit, vector)


@dataclass(frozen=True)
class Addend:
    """A vector of int8 values plus `offset`: int8, uint8, or int32 where they do not fit."""

    vector: Expr
    offset: int = 0


def stored_addend(vector: Expr, dtype: str, lanes: int) -> Addend:
    """A vector as a layout of `dtype` stores it."""
    if dtype in _OFFSETS:
        return Addend(vector, _OFFSETS[dtype])
    return Addend(decoded(vector, dtype, lanes))


def added(op: Add, a: Addend, b: Addend, lanes: int, unit: VectorUnit, dtype: str = "int8") -> Expr:
    """The sum of two vectors, in the dtype of a layout."""
    short = short_add(op, a.offset, b.offset)
    if short is None:
        return factored_sum(op, a, b, lanes, unit, dtype)
    x, y = (cast(addend.vector, "int32", lanes) for addend in (a, b))
    bounds = Bounds(op.out_zero_point, op.lo, op.hi)
    begun = x * constant(short.a_factor, "int32", lanes) + constant(short.start, "int32", lanes)
    total = begun + y * constant(short.b_factor, "int32", lanes)
    shifted = T.bind(T.shift_right(total, constant(short.shift, "int32", lanes)))
    bounds = replace(bounds, fits_int16=_in_int16(op, short))
    return narrowed(shifted, bounds, lanes, unit.requantize, dtype)


def factored_sum(op: Add, a: Addend, b: Addend, lanes: int, unit: VectorUnit, dtype: str = "int8") -> Expr:
    """The sum as it is defined, of vectors of any integers; `dtype` of a layout where they are int8."""
    x, y = (cast(addend.vector, "int32", lanes) for addend in (a, b))
    first = _factored(x, a.offset + op.a_zero_point, op.a_factor, lanes)
    second = _factored(y, b.offset + op.b_zero_point, op.b_factor, lanes)
    bounds = Bounds(op.out_zero_point, op.lo, op.hi, dtype=op.out, rounding=op.rounding)
    factors = [constant(v, "int32", lanes) for v in (op.multiplier, op.shift)]
    return finish(T.bind(first + second), factors, bounds, lanes, unit.requantize, dtype)


def _factored(value: Expr, zero_point: int, factor: int, lanes: int) -> Expr:
    return (value - constant(zero_point, "int32", lanes)) * constant(factor, "int32", lanes)


def _in_int16(op: Add, short: ShortAdd) -> bool:
    """Whether no shifted sum leaves int16, with or without the zero point."""
    largest = 2 * _LARGEST * (abs(short.a_factor) + abs(short.b_factor)) + abs(short.start)
    return (largest >> short.shift) + 1 + abs(op.out_zero_point) <= _INT16


@dataclass(frozen=True)
class FloatAdd(_Sum, FloatOperator):
    """(a, b) -> broadcast shape; y = fma(a, a_factor, b * b_factor)."""

    kind: ClassVar[str] = "float_add"
    a_factor: float
    b_factor: float
    lo: float
    hi: float
    a_zero_point: int = 0
    b_zero_point: int = 0
    out: str = "float8_e4m3fn"
    out_zero_point: int = 0

    def reference(self, a, b) -> np.ndarray:
        scaled = value(b, self.b_zero_point) * np.float32(self.b_factor)
        return stored(self, fma(value(a, self.a_zero_point), np.asarray(self.a_factor, np.float32), scaled))


@lowers("composite.add", family="add", makes=(Add, FloatAdd))
def lower_fused_add(e: Emitter, unit: Composite, out: Output) -> Any:
    """A sum with a clamp behind it."""
    return _lowered(e, unit.head, unit.args, unit.bounds, out)


@lowers("add", "subtract", family="add", makes=(Add, FloatAdd))
def lower_add(e: Emitter, call: Any, out: Output) -> Any:
    """A sum or difference of two tensors."""
    return _lowered(e, call, call.args, (-np.inf, np.inf), out)


def _lowered(e: Emitter, call: Any, args: Sequence[Any], bounds: tuple[Any, Any], out: Output) -> Any:
    sign = -1 if op_name(call) == "subtract" else 1
    if out.in_floats:
        joined = _joined(e, args, bounds, out) if sign > 0 else None
        return _in_floats(e, args, sign, bounds, out) if joined is None else joined
    a, b = e.operands(args, out)
    fraction = WIDE_FRACTION_BITS if max(a.bits, b.bits) > 8 else FRACTION_BITS
    coarse = max(float(a.scale), float(b.scale))
    factors = [round(float(t.scale) / coarse * 2**fraction) for t in (a, b)]
    multiplier, shift = multiplier_of(coarse / (2**fraction * out.scale))
    ends = multiplier, shift, out.zero, *out.code_bounds(*bounds), out.dtype
    return e.binary(Add(a.zero, b.zero, factors[0], sign * factors[1], *ends), a, b, out)


def _in_floats(e: Emitter, args: Sequence[Any], sign: int, bounds: tuple[Any, Any], out: Output) -> Any:
    a, b = e.operands(args, out)
    ends = *out.real_bounds(*bounds), a.zero, b.zero, out.dtype, out.zero
    return e.binary(FloatAdd(factor_to(a, out), sign * factor_to(b, out), *ends), a, b, out)


def _joined(e: Emitter, args: Sequence[Any], bounds: tuple[Any, Any], out: Output) -> Any:
    """The sum in one operator with the layer of a summand that is not rounded; None where there is none."""
    for layer, other in (args, args[::-1]):
        value = e.values.get(layer)
        summand, rule = read_composite(e.mod, value), rule_of(e.mod, value)
        if summand is not None and rule is not None and is_float_layer(e.mod, e.values, value):
            (residual,) = e.operands([other], out)
            origin = replace(out.origin, weights_of=e.r.origins[layer].label)
            joined = replace(out, origin=origin, residual=residual)
            return rule.lower(e, replace(summand, bounds=bounds), joined)
    return None
