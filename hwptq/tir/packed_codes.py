"""Codes that are packed in bytes, the first in the lowest bits, one by one: see Format.pack."""

from __future__ import annotations

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.formats import format_of
from hwptq.quant.group_codes import BYTE_SCALE_BIAS, BYTE_SCALE_PLACE

from .builder import Expr, Flat, cast, constant, dtype_of

_BYTE = 8
_FLOAT_BYTES = 4


def level(codes: Flat, first: Expr, index: Expr, weight: str) -> Expr:
    """The level, an int32, of code `index` of a row that begins at byte `first`."""
    bits = format_of(weight).bits
    return as_level(_pattern(codes, first, index, bits), weight)


def as_level(pattern: Expr, weight: str) -> Expr:
    """The level of a bit pattern, both int32."""
    found = format_of(weight)
    levels = [int(v) for v in found.from_bit_patterns(np.arange(2**found.bits))]
    half = 2 ** (found.bits - 1)
    if levels == [(p ^ half) - half for p in range(2 * half)]:  # two's complement
        return T.bitwise_xor(pattern, constant(half, "int32")) - constant(half, "int32")
    chosen: Expr = constant(levels[0], "int32")
    for place, value in enumerate(levels[1:], 1):
        chosen = T.Select(pattern >= constant(place, "int32"), constant(value, "int32"), chosen)
    return chosen


def _pattern(codes: Flat, first: Expr, index: Expr, bits: int) -> Expr:
    """The bits of a code as an int32. It is read from one byte, or from the two that it lies across."""
    place = index * bits
    byte, within = first + T.floordiv(place, _BYTE), T.floormod(place, _BYTE)
    mask = constant(2**bits - 1, "int32")
    low = T.shift_right(cast(codes.load(byte), "int32"), within)
    if _BYTE % bits == 0:
        return T.bitwise_and(low, mask)
    last = first + T.floordiv(place + bits - 1, _BYTE)
    high = T.shift_left(cast(codes.load(last), "int32"), constant(_BYTE, "int32") - within)
    return T.bitwise_and(T.Select(last > byte, T.bitwise_or(low, high), low), mask)


def short_scale(scales: Flat, index: Expr, lanes: int = 1) -> Expr:
    """`lanes` neighbouring scales as float32: see quant/group_codes.py."""
    value, size = scales.load(index, lanes), np.dtype(scales.dtype).itemsize
    if size == _FLOAT_BYTES:
        return value
    place, bias = (BYTE_SCALE_PLACE, BYTE_SCALE_BIAS) if size == 1 else (16, 0)
    bits = T.shift_left(cast(value, "int32", lanes), constant(place, "int32", lanes))
    bits = bits + constant(bias, "int32", lanes) if bias else bits
    return T.reinterpret(dtype_of("float32", lanes), bits)
