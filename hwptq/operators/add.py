"""Sums and differences of two tensors, in integers and in floats. An Add is short where it can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.ir.operator import Operator
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
    bounds = Bounds(op.out_zero_point, op.lo, op.hi, dtype=op.out)
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
