"""Quotients, nearest integers and exponentials of float32 by fused multiply-adds.

The first two are for devices that lack instructions, and give what a division and a rounding give, to the
bit: no target differs.
"""

from __future__ import annotations

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.quant.float_attention import LEAST, LN_2, LOG2_E, MAGIC, POLYNOMIAL

from .builder import Expr, constant, dtype_of, exact_float32, splat

#: Scales by which quotients are exact: no step on the way is subnormal or infinite.
SCALES = (2.0**-60, 2.0**60)


def quotient(x: Expr, scale: float, lanes: int) -> Expr:
    """x / scale rounded to float32, where |x / scale| is less than 2^22 and at least 2^-30, else something as
    near to 0; scale a float32 within SCALES.

    With the float32 nearest to 1 / scale one step makes a quotient that lies beside the exact one, and the
    next one rounds it as a division does (Markstein, IBM Journal of Research and Development 34 (1), 1990).
    """
    reciprocal = float(np.float32(1) / np.float32(scale))
    divisor, factor = (splat(exact_float32(v), lanes) for v in (-scale, reciprocal))
    found = T.bind(x * factor)
    for _ in range(2):
        rest = T.bind(fma(found, divisor, x, lanes))
        found = T.bind(fma(rest, factor, found, lanes))
    return found


def nearest(x: Expr, lanes: int) -> Expr:
    """The integer nearest to x, |x| < 2^22, half to even, as float32."""
    one, magic = (constant(v, "float32", lanes) for v in (1.0, MAGIC))
    return T.bind(T.bind(fma(x, one, magic, lanes)) - magic)


def fma(a: Expr, b: Expr, c: Expr, lanes: int) -> Expr:
    """a * b + c of float32, rounded once."""
    return T.call_llvm_pure_intrin(dtype_of("float32", lanes), "llvm.fma", a, b, c)


def exponential(x: Expr, lanes: int) -> Expr:
    """exp(x), x <= 0, as quant/float_attention.py has it."""

    def number(value: float) -> Expr:
        return constant(value, "float32", lanes)

    x = T.bind(T.max(x, number(LEAST)))
    shifted = T.bind(fma(x, number(LOG2_E), number(MAGIC), lanes))
    n = T.bind(shifted - number(MAGIC))
    rest = x
    for part in LN_2:
        rest = T.bind(fma(n, number(-part), rest, lanes))
    value = number(POLYNOMIAL[0])
    for c in POLYNOMIAL[1:]:
        value = T.bind(fma(value, rest, number(c), lanes))
    value = T.bind(fma(value, rest * rest, rest, lanes) + number(1.0))
    whole = dtype_of("int32", lanes)
    power = T.shift_left(T.reinterpret(whole, shifted), constant(23, "int32", lanes))
    return T.bind(T.reinterpret(dtype_of("float32", lanes), T.reinterpret(whole, value) + power))
