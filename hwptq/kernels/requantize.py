"""The requantize epilogue: int32 accumulators -> int8, as scalar or vector code.

    v = (acc * m + 2^30) >> 31          multiply_high
    y = clamp(((v + 2^(s-1)) >> s) + zero_point, lo, hi)         rounding_shift

The first step takes a 64-bit product unless the target has an intrinsic for it. |acc| <= 2^30 - 1 and
m < 2^31 bound v + 2^(s-1) by 2^31 - 1, so the second one stays in 32 bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from hwptq.targets.schema import Requantize

from .builder import Expr, cast, clamp, constant, dtype_of, shuffle


@dataclass(frozen=True)
class Bounds:
    """What follows the shift: zero point and clamp of the int8 output."""

    zero_point: int
    lo: int
    hi: int


#: No intrinsics: 64-bit products.
GENERIC = Requantize()


def requantize(
    acc: Expr, multiplier: Expr, shift: Expr, bounds: Bounds, lanes: int, target: Requantize = GENERIC
) -> Expr:
    """int32x`lanes` accumulators, multipliers and shifts -> int8x`lanes`."""
    native = bool(target.multiply_high) and lanes % target.lanes == 0
    scaled = (
        _by_intrinsics(acc, multiplier, shift, lanes, target)
        if native
        else _generic(acc, multiplier, shift, lanes)
    )
    value = scaled + constant(bounds.zero_point, "int32", lanes)
    limits = [constant(limit, "int32", lanes) for limit in (bounds.lo, bounds.hi)]
    return cast(clamp(value, *limits), "int8", lanes)


def _generic(acc: Expr, multiplier: Expr, shift: Expr, lanes: int) -> Expr:
    product = cast(acc, "int64", lanes) * cast(multiplier, "int64", lanes)
    rounded = product + constant(2**30, "int64", lanes)
    high = cast(T.shift_right(rounded, constant(31, "int64", lanes)), "int32", lanes)
    return _shifted(high, shift, lanes)


def _shifted(high: Expr, shift: Expr, lanes: int) -> Expr:
    one = constant(1, "int32", lanes)
    return T.shift_right(high + T.shift_left(one, shift - one), shift)


def _by_intrinsics(acc: Expr, multiplier: Expr, shift: Expr, lanes: int, target: Requantize) -> Expr:
    """The intrinsics work on `target.lanes` values, so wider vectors are split and joined again."""
    width = target.lanes
    dtype = dtype_of("int32", width)
    parts = []
    for first in range(0, lanes, width):
        a, m, s = (_part(v, first, width, lanes) for v in (acc, multiplier, shift))
        low = [T.call_llvm_pure_intrin(dtype, target.multiply_low, a, m)] if target.multiply_low else []
        high = T.call_llvm_pure_intrin(dtype, target.multiply_high, *low, a, m)
        if target.rounding_shift:
            negated = constant(0, "int32", width) - s
            parts.append(T.call_llvm_pure_intrin(dtype, target.rounding_shift, high, negated))
        else:
            parts.append(_shifted(T.bind(high), s, width))
    return parts[0] if len(parts) == 1 else shuffle(parts, range(lanes))


def _part(vector: Expr, first: int, width: int, lanes: int) -> Expr:
    return vector if width == lanes else shuffle([vector], range(first, first + width))
