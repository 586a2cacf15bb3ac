"""int8 values as a layout stores them: as they are, as int16, or as uint8 with 128 added."""

from __future__ import annotations

from tvm.script.ir_builder import tirx as T

from .builder import Expr, cast, constant, dtype_of

_SIGN_BIT = -128  # q xor 0x80 = q + 128 as uint8


def encoded(value: Expr, dtype: str, lanes: int) -> Expr:
    """int8 values as they are stored in a layout of `dtype`."""
    if dtype == "uint8":
        return T.reinterpret(dtype_of("uint8", lanes), _flipped(value, lanes))
    return value if dtype == "int8" else cast(value, dtype, lanes)


def decoded(value: Expr, dtype: str, lanes: int) -> Expr:
    """The int8 values of stored ones."""
    if dtype == "uint8":
        return _flipped(T.reinterpret(dtype_of("int8", lanes), value), lanes)
    return value if dtype == "int8" else cast(value, "int8", lanes)


def _flipped(value: Expr, lanes: int) -> Expr:
    return T.bitwise_xor(value, constant(_SIGN_BIT, "int8", lanes))
