"""Add and Mul of vectors of int8 values. An Add takes its short form where there is one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tvm.script.ir_builder import tirx as T

from hwptq.quant import integer_ops as ops
from hwptq.quant import reference
from hwptq.quant.short_add import ShortAdd, short_add
from hwptq.tir.builder import Expr, cast, constant
from hwptq.tir.encoding import decoded
from hwptq.tir.requantize import Bounds, finish, narrowed
from hwptq.tir.vector_unit import VectorUnit

_OFFSETS = {"int8": 0, "uint8": 128}
_INT16 = 2**15 - 1
_LARGEST = 128  # of a value, and of an offset


@dataclass(frozen=True)
class Operand:
    """A vector of int8 values plus `offset`: int8, uint8, or int32 where they do not fit."""

    vector: Expr
    offset: int = 0


def stored_operand(vector: Expr, dtype: str, lanes: int) -> Operand:
    """A vector as a layout of `dtype` stores it."""
    if dtype in _OFFSETS:
        return Operand(vector, _OFFSETS[dtype])
    return Operand(decoded(vector, dtype, lanes))


def added(op: ops.Add, a: Operand, b: Operand, lanes: int, unit: VectorUnit, dtype: str = "int8") -> Expr:
    """The sum of two vectors, in the dtype of a layout."""
    x, y = (cast(operand.vector, "int32", lanes) for operand in (a, b))
    short = short_add(op, a.offset, b.offset)
    if short is None:
        first = _factored(x, a.offset + op.a_zero_point, op.a_factor, lanes)
        second = _factored(y, b.offset + op.b_zero_point, op.b_factor, lanes)
        return _requantized(op, T.bind(first + second), lanes, unit, dtype)
    begun = x * constant(short.a_factor, "int32", lanes) + constant(short.start, "int32", lanes)
    total = begun + y * constant(short.b_factor, "int32", lanes)
    shifted = T.bind(T.shift_right(total, constant(short.shift, "int32", lanes)))
    bounds = replace(_bounds(op), fits_int16=_in_int16(op, short))
    return narrowed(shifted, bounds, lanes, unit.requantize, dtype)


def _factored(value: Expr, zero_point: int, factor: int, lanes: int) -> Expr:
    return (value - constant(zero_point, "int32", lanes)) * constant(factor, "int32", lanes)


def multiplied(op: ops.Mul, a: Expr, b: Expr, lanes: int, unit: VectorUnit) -> Expr:
    """The product of two vectors of int8."""
    centred = [
        cast(v, "int32", lanes) - constant(zero_point, "int32", lanes)
        for v, zero_point in ((a, op.a_zero_point), (b, op.b_zero_point))
    ]
    product = centred[0] * centred[1]
    acc = T.shift_left(product, constant(reference.MUL_LEFT_SHIFT, "int32", lanes))
    return _requantized(op, T.bind(acc), lanes, unit, "int8")


def _requantized(op: ops.Add | ops.Mul, acc: Expr, lanes: int, unit: VectorUnit, dtype: str) -> Expr:
    factors = [constant(v, "int32", lanes) for v in (op.multiplier, op.shift)]
    return finish(acc, factors, _bounds(op), lanes, unit.requantize, dtype)


def _bounds(op: ops.Add | ops.Mul) -> Bounds:
    return Bounds(op.out_zero_point, op.lo, op.hi)


def _in_int16(op: ops.Add, short: ShortAdd) -> bool:
    """Whether no shifted sum leaves int16, with or without the zero point."""
    largest = 2 * _LARGEST * (abs(short.a_factor) + abs(short.b_factor)) + abs(short.start)
    return (largest >> short.shift) + 1 + abs(op.out_zero_point) <= _INT16
