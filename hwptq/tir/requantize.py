"""The requantize epilogue: int32 accumulators -> int8 (or float32), as scalar or vector code.

    v = (acc * m + 2^30) >> 31          multiply_high
    y = clamp(((v + 2^(s-1)) >> s) + zero_point, lo, hi)         rounding_shift

Devices that round otherwise (see quant/fixed_point.py) are computed by 64-bit products. Else there are three
forms with the same result: intrinsics for both steps; 64-bit products; and, where a device multiplies only
every other lane to 64 bits, products of even and odd lanes (wide_products). |acc| <= 2^30 - 1 and m < 2^31
bound v + 2^(s-1) by 2^31 - 1, so the second step stays in 32 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.quant.fixed_point import STEPS
from hwptq.targets.requantize import Requantize

from .builder import Expr, cast, clamp, constant, dtype_of, every_other, shuffle
from .encoding import encoded

_PACKED = 4  # int32 vectors that fill one vector of int8


@dataclass(frozen=True)
class Bounds:
    """What follows the shift: zero point and clamp of the output, int8, uint8 or int16.

    rounding: one of quant/fixed_point.py. `fits_int16`: no result is beyond int16 before the clamp, with or
    without its zero point. `early`: where bytes are packed, the clamp comes before: LLVM's instruction
    selection for AVX-512 does not end with bytes that are clamped and then stored by parts of less than 16.
    """

    zero_point: int
    lo: int
    hi: int
    fits_int16: bool = False
    dtype: str = "int8"
    early: bool = False
    rounding: str = STEPS

    @property
    def narrow(self) -> bool:
        """Whether results are bytes."""
        return np.dtype(self.dtype).itemsize == 1

    @property
    def unsigned(self) -> Bounds:
        """Those of the same int8 values, stored as uint8 with 128 added."""
        zero, lo, hi = (v + 128 for v in (self.zero_point, self.lo, self.hi))
        return replace(self, zero_point=zero, lo=lo, hi=hi, dtype="uint8", fits_int16=False)


#: No intrinsics: 64-bit products.
GENERIC = Requantize()


def packed_lanes(target: Requantize) -> int:
    """How many int32 values at once `target` narrows to a full vector of int8; 0 = it has no instruction."""
    return _PACKED * target.lanes if target.pack_bytes else 0


def requantize(
    acc: Expr, multiplier: Expr, shift: Expr, bounds: Bounds, lanes: int, target: Requantize = GENERIC
) -> Expr:
    """int32x`lanes` accumulators, multipliers and shifts -> `lanes` values of the dtype of the bounds."""
    parts = _scaled(acc, multiplier, shift, lanes, target, bounds.rounding)
    if len(parts) > 1 and target.pack_bytes and bounds.narrow:
        return _pack(parts, bounds, target)
    scaled = parts[0] if len(parts) == 1 else shuffle(parts, range(lanes))
    return _narrow(scaled, bounds, lanes, target)


def shortened(acc: Expr, by: int, lanes: int) -> Expr:
    """int64 sums -> int32 by a rounding shift; by = 0: int32 ones as they are."""
    if not by:
        return acc
    rounded = acc + constant(2 ** (by - 1), "int64", lanes)
    return T.bind(cast(T.shift_right(rounded, constant(by, "int64", lanes)), "int32", lanes))


def summed_in(by: int) -> str:
    """The dtype of sums that are shortened `by` bits."""
    return "int64" if by else "int32"


def finish(
    acc: Expr, scales: Sequence[Expr], bounds: Bounds | None, lanes: int, target: Requantize = GENERIC,
    dtype: str = "int8",
) -> Expr:  # fmt: skip
    """Accumulators -> int8 by (multiplier, shift), or without bounds -> float32 by a float32 (scale,).

    The int8 values are stored as `dtype`: see encoding.py.
    """
    if bounds is not None:
        multiplier, shift = scales
        bounds, rest = _split(bounds, dtype, target)
        return encoded(requantize(acc, multiplier, shift, bounds, lanes, target), rest, lanes)
    (scale,) = scales
    return cast(acc, "float32", lanes) * scale


def multiply_high(value: Expr, multiplier: Expr, lanes: int, target: Requantize = GENERIC) -> Expr:
    """(value * multiplier + 2^30) >> 31 of int32 vectors, the first step alone."""
    if lanes % target.lanes == 0 and (target.wide_products or target.multiply_high):
        form = _high_of_wide_products if target.wide_products else _high_by_intrinsics
        width = target.lanes
        parts = [
            form(_part(value, first, width, lanes), _part(multiplier, first, width, lanes), target)
            for first in range(0, lanes, width)
        ]
        return T.bind(parts[0] if len(parts) == 1 else shuffle(parts, range(lanes)))
    return T.bind(_high(value, multiplier, lanes, GENERIC))  # value is not bounded as sums are


def rounding_shift(value: Expr, shift: Expr, lanes: int) -> Expr:
    """(value + 2^(shift-1)) >> shift of int32 vectors, the second step alone."""
    return T.bind(_shifted(value, shift, lanes))


def bounded(
    acc: Expr, multiplier: Expr, shift: Expr, bounds: Bounds, lanes: int, target: Requantize = GENERIC
) -> Expr:
    """The results of requantize less their zero point, in int32."""
    scaled = _scaled(acc, multiplier, shift, lanes, target, bounds.rounding)
    limits = (constant(v - bounds.zero_point, "int32", lanes) for v in (bounds.lo, bounds.hi))
    return clamp(scaled[0] if len(scaled) == 1 else shuffle(scaled, range(lanes)), *limits)


def narrowed(
    value: Expr, bounds: Bounds, lanes: int, target: Requantize = GENERIC, dtype: str = "int8"
) -> Expr:
    """int32 results that are scaled already -> int8 values, stored as `dtype`."""
    bounds, rest = _split(bounds, dtype, target)
    width = target.lanes
    if target.pack_bytes and bounds.narrow and lanes > width and lanes % width == 0:
        parts = [_part(value, first, width, lanes) for first in range(0, lanes, width)]
        return encoded(_pack(parts, bounds, target), rest, lanes)
    return encoded(_narrow(value, bounds, lanes, target), rest, lanes)


def requantize_blocks(
    acc: Sequence[Expr], multiplier: Sequence[Expr], shift: Sequence[Expr], bounds: Bounds,
    target: Requantize, lanes: int, block: int = 16, dtype: str = "int8",
) -> Expr:  # fmt: skip
    """Four int32x`lanes` vectors whose lanes 4b ... 4b+3, one after the other, are block b of the result.

    So it is with blocks of 16 bytes; larger ones take more lanes of each vector, and a block of 4 is one lane
    of each, whose lowest bytes stand together then.

    That is the order in which packing narrows them, so nothing is moved where the target packs.
    """
    bounds, rest = _split(bounds, dtype, target)
    total = _PACKED * lanes
    native = bounds.narrow and lanes == target.lanes and bounds.rounding == STEPS
    if native and target.pack_bytes and target.wide_products and block == 16:
        scaled = [_by_wide_products(*v, target) for v in zip(acc, multiplier, shift, strict=True)]
        return encoded(_clamped(_pack_four(scaled, bounds, target), bounds, total), rest, total)
    if native and target.multiply_high and block == _PACKED:
        words = [
            T.reinterpret(dtype_of(bounds.dtype, total), _bounded(_by_intrinsics(*v, target), bounds, lanes))
            for v in zip(acc, multiplier, shift, strict=True)
        ]
        first, second = (T.bind(every_other(a, b, 0, 1)) for a, b in (words[:2], words[2:]))
        return encoded(every_other(first, second, 0, 2), rest, total)
    value, factor, by = (shuffle(v, range(total)) for v in (acc, multiplier, shift))
    narrow = requantize(value, factor, by, bounds, total, target)
    each = block // _PACKED
    order = [
        part * lanes + first + i
        for first in range(0, lanes, each)
        for part in range(_PACKED)
        for i in range(each)
    ]
    narrow = encoded(narrow, rest, total)
    return narrow if order == list(range(total)) else shuffle([narrow], order)


def _split(bounds: Bounds, dtype: str, target: Requantize) -> tuple[Bounds, str]:
    """Bounds of what the device narrows to at once, and the dtype to encode its result in."""
    direct = dtype == "uint8" and bool(target.pack_unsigned_bytes or not target.pack_bytes)
    return (bounds.unsigned, "int8") if direct else (bounds, dtype)


def _scaled(
    acc: Expr, multiplier: Expr, shift: Expr, lanes: int, target: Requantize, rounding: str
) -> list[Expr]:
    """Both steps without zero point and clamp, in int32, by vectors as wide as the device computes them."""
    if rounding != STEPS:
        return [_rounded_once(acc, multiplier, shift, lanes, rounding)]
    scale = _form(lanes, target)
    if scale is None:
        return [_generic(acc, multiplier, shift, lanes, target)]
    width = target.lanes
    return [
        scale(*(_part(v, first, width, lanes) for v in (acc, multiplier, shift)), target)
        for first in range(0, lanes, width)
    ]


def _rounded_once(acc: Expr, multiplier: Expr, shift: Expr, lanes: int, rounding: str) -> Expr:
    """The product, rounded at once: see quant/fixed_point.py."""

    def number(value: int) -> Expr:
        return constant(value, "int64", lanes)

    wide = cast(acc, "int64", lanes)
    product = T.bind(wide * cast(multiplier, "int64", lanes))
    by = T.bind(cast(shift, "int64", lanes) + number(31))
    half = T.bind(T.shift_left(number(1), by - number(1)))
    sign = number(63)
    added = product + half
    if rounding == "half-away":
        added = added + T.shift_right(product, sign)
    elif rounding == "double":  # 2^30, or -2^30: all bits of the sign, with the lowest one set
        added = added + (T.shift_left(T.shift_right(wide, sign) * number(2) + number(1), number(30)))
    up = T.bind(T.shift_right(added, by))
    if rounding == "half-even":
        fraction = T.bitwise_and(product, half + half - number(1))
        other = T.bitwise_xor(fraction, half)  # 0 in the middle, else positive
        middle = T.shift_right(other - number(1), sign)  # all bits, or none
        up = up - T.bitwise_and(T.bitwise_and(middle, up), number(1))
    return T.bind(cast(up, "int32", lanes))


def _form(lanes: int, target: Requantize) -> Expr:
    """The way to scale vectors of `target.lanes`; None for 64-bit products of any width."""
    if lanes % target.lanes:
        return None
    if target.wide_products:
        return _by_wide_products
    return _by_intrinsics if target.multiply_high else None


def _part(vector: Expr, first: int, width: int, lanes: int) -> Expr:
    return vector if width == lanes else shuffle([vector], range(first, first + width))


def _generic(acc: Expr, multiplier: Expr, shift: Expr, lanes: int, target: Requantize) -> Expr:
    return _shifted(_high(acc, multiplier, lanes, target), shift, lanes)


def _high(acc: Expr, multiplier: Expr, lanes: int, target: Requantize) -> Expr:
    if target.fixed_point:  # |acc| < 2^30, so (acc m) >> 30 fits, and floors nest
        name, one = f"llvm.smul.fix.{f'v{lanes}' if lanes > 1 else ''}i32", constant(1, "int32", lanes)
        scaled = T.call_llvm_pure_intrin(dtype_of("int32", lanes), name, acc, multiplier, T.int32(30))
        return T.shift_right(scaled + one, one)
    product = cast(acc, "int64", lanes) * cast(multiplier, "int64", lanes)
    rounded = product + constant(2**30, "int64", lanes)
    return cast(T.shift_right(rounded, constant(31, "int64", lanes)), "int32", lanes)


def _shifted(high: Expr, shift: Expr, lanes: int) -> Expr:
    one = constant(1, "int32", lanes)
    return T.shift_right(high + T.shift_left(one, shift - one), shift)


def _by_intrinsics(acc: Expr, multiplier: Expr, shift: Expr, target: Requantize) -> Expr:
    lanes = target.lanes
    high = _high_by_intrinsics(acc, multiplier, target)
    if not target.rounding_shift:
        return _shifted(T.bind(high), shift, lanes)
    by = constant(0, "int32", lanes) - shift
    flags = (T.int32(number) for number in target.rounding_shift_flags)
    return T.call_llvm_pure_intrin(dtype_of("int32", lanes), target.rounding_shift, high, by, *flags)


def _high_by_intrinsics(acc: Expr, multiplier: Expr, target: Requantize) -> Expr:
    dtype, factors = dtype_of("int32", target.lanes), (acc, multiplier)
    low = [T.call_llvm_pure_intrin(dtype, target.multiply_low, *factors)] if target.multiply_low else []
    return T.call_llvm_pure_intrin(dtype, target.multiply_high, *low, *factors)


def _by_wide_products(acc: Expr, multiplier: Expr, shift: Expr, target: Requantize) -> Expr:
    """Both steps as one shift of 64-bit sums: (acc * m + 2^30 + 2^(30+s)) >> (31+s).

    Floors nest, so it is the same as taking the upper halves of the sums and shifting them by s - 1.
    """
    unit = constant(2**30, "int64", target.lanes // 2)
    upper = _upper_halves(
        lambda pick: pick(acc) * pick(multiplier) + (unit + T.shift_left(unit, pick(shift))), target
    )
    return T.shift_right(upper, shift - constant(1, "int32", target.lanes))


def _high_of_wide_products(acc: Expr, multiplier: Expr, target: Requantize) -> Expr:
    """The first step as the upper halves of 2 * acc * m + 2^31."""
    half = target.lanes // 2
    unit, one = constant(2**31, "int64", half), constant(1, "int64", half)
    return _upper_halves(lambda pick: T.shift_left(pick(acc) * pick(multiplier), one) + unit, target)


def _upper_halves(sums: Callable[[Callable[[Expr], Expr]], Expr], target: Requantize) -> Expr:
    """The upper 32 bits of 64-bit sums of even and of odd lanes, in the order of the lanes."""
    lanes, half = target.lanes, target.lanes // 2
    wide, word = dtype_of("int64", half), constant(32, "int64", half)

    def even(vector: Expr) -> Expr:
        return T.shift_right(T.shift_left(T.reinterpret(wide, vector), word), word)

    def odd(vector: Expr) -> Expr:
        return even(shuffle([vector], [i | 1 for i in range(lanes)]))

    found = [T.reinterpret(dtype_of("int32", lanes), sums(pick)) for pick in (even, odd)]
    return shuffle(found, [i for k in range(1, lanes, 2) for i in (k, lanes + k)])


def _narrow(value: Expr, bounds: Bounds, lanes: int, target: Requantize) -> Expr:
    """Zero point, clamp and conversion by plain code."""
    if target.saturating_casts and lanes > 1 and bounds.dtype == "int8":
        words = cast(value, "int16", lanes) if bounds.fits_int16 else _saturated(value, "int16", lanes)
        return _limited(_bytes(words, bounds.zero_point, lanes), bounds, lanes, "int8")
    limits = np.iinfo(bounds.dtype)
    if target.saturate and lanes == 1 and (bounds.lo, bounds.hi) == (limits.min, limits.max) and limits.min:
        shifted, bits = value + constant(bounds.zero_point, "int32"), T.int32(limits.bits)
        return cast(T.call_llvm_pure_intrin("int32", target.saturate, shifted, bits), bounds.dtype)
    return cast(_bounded(value, bounds, lanes), bounds.dtype, lanes)


def _bounded(value: Expr, bounds: Bounds, lanes: int) -> Expr:
    """Zero point and clamp, in 32 bits."""
    shifted = value + constant(bounds.zero_point, "int32", lanes)
    return clamp(shifted, *(constant(limit, "int32", lanes) for limit in (bounds.lo, bounds.hi)))


def _bytes(words: Expr, zero_point: int, lanes: int) -> Expr:
    """int16 -> int8, with the zero point, by saturation."""
    if zero_point == -128:  # v - 128 in int8 is v in uint8 with the other sign bit
        unsigned = _saturated(words, "uint8", lanes)
        return T.bitwise_xor(T.reinterpret(dtype_of("int8", lanes), unsigned), constant(-128, "int8", lanes))
    if zero_point:
        zero = constant(zero_point, "int16", lanes)
        words = T.call_llvm_pure_intrin(dtype_of("int16", lanes), f"llvm.sadd.sat.v{lanes}i16", words, zero)
    return _saturated(words, "int8", lanes)


def _saturated(value: Expr, dtype: str, lanes: int) -> Expr:
    """`value` in half its bits: a clamp and a cast, which LLVM makes one instruction."""
    limits = np.iinfo(dtype)
    wide = f"int{2 * limits.bits}"
    return cast(
        clamp(value, *(constant(int(v), wide, lanes) for v in (limits.min, limits.max))), dtype, lanes
    )


def _pack(parts: Sequence[Expr], bounds: Bounds, target: Requantize) -> Expr:
    """The same by instructions that narrow with saturation, four vectors at a time."""
    total, size = len(parts) * target.lanes, _PACKED * target.lanes
    filled = [*parts, *[parts[-1]] * (-len(parts) % _PACKED)]
    packed = [
        _clamped(_in_order(_pack_four(filled[i : i + _PACKED], bounds, target), bounds, target), bounds, size)
        for i in range(0, len(filled), _PACKED)
    ]
    return packed[0] if total == size else shuffle(packed, range(total))


def _pack_four(parts: Sequence[Expr], bounds: Bounds, target: Requantize) -> Expr:
    """Packing works in blocks of 128 bits: block b gets lanes 4b ... 4b+3 of each part in turn."""
    lanes = target.lanes
    dtype = dtype_of("int16", 2 * lanes)
    zero = constant(bounds.zero_point, "int16", 2 * lanes)
    words = [T.call_llvm_pure_intrin(dtype, target.pack_words, *pair) for pair in (parts[:2], parts[2:])]
    if bounds.zero_point:
        name = f"llvm.sadd.sat.v{2 * lanes}i16"
        words = [T.call_llvm_pure_intrin(dtype, name, word, zero) for word in words]
    if bounds.early:
        words = [_limited(word, bounds, 2 * lanes, "int16") for word in words]
    name = target.pack_unsigned_bytes if bounds.dtype == "uint8" else target.pack_bytes
    return T.call_llvm_pure_intrin(dtype_of(bounds.dtype, _PACKED * lanes), name, *words)


def _in_order(packed: Expr, bounds: Bounds, target: Requantize) -> Expr:
    """The result of _pack_four with one part after the other."""
    lanes = target.lanes
    order = [block * _PACKED + part for part in range(_PACKED) for block in range(lanes // _PACKED)]
    words = shuffle([T.reinterpret(dtype_of("int32", lanes), packed)], order)
    return T.reinterpret(dtype_of(bounds.dtype, _PACKED * lanes), words)


def _clamped(value: Expr, bounds: Bounds, lanes: int) -> Expr:
    """Packed bytes within bounds."""
    return value if bounds.early else _limited(value, bounds, lanes, bounds.dtype)


def _limited(value: Expr, bounds: Bounds, lanes: int, dtype: str) -> Expr:
    least, most = (0, 255) if bounds.dtype == "uint8" else (-128, 127)
    if bounds.hi < most:
        value = T.min(value, constant(bounds.hi, dtype, lanes))
    if bounds.lo > least:
        value = T.max(value, constant(bounds.lo, dtype, lanes))
    return value
