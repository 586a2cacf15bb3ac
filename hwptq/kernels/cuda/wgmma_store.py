"""The end of a tile of the wgmma kernel: scale, bias, residual, clamp, and rounding to the output's dtype."""

# TVMScript is parsed and never run as Python.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm.script import tirx as T

from hwptq.kernels.requantize import Bounds, requantize
from hwptq.quant import fp8

from .tiling import PERMUTED, Tiling
from .wgmma_places import Places

WIDTH = 16  # neighbouring channels of a thread


@dataclass(frozen=True)
class Epilogue:
    """What becomes of a sum.

    Of a sum of e4m3: fma(sum, scale, bias), fma(value of the residual, factor, that), a clamp to [lo, hi],
    and `dtype`, as fp8_ops says. Of one of int8: sum + bias, then in int8 a multiplier and a shift, as
    fixed_point.requantize has it, in any other dtype a float32 scale, a clamp, and `dtype`.
    """

    dtype: str
    lo: float
    hi: float
    residual: bool = False
    zero_point: int = 0
    residual_dtype: str = fp8.DTYPE
    residual_zero_point: int = 0

    def fixed_point(self, t: Tiling) -> bool:
        """Whether an int32 becomes an int8 without a float32 between."""
        return t.problem.operand.sums == "int32" and self.dtype == "int8"


@dataclass(frozen=True)
class Outside:
    """What the end of a tile reads and writes, as flat buffers; `words` is y in units of 4 bytes."""

    scale: Any
    bias: Any
    residual: Any
    factor: Any
    y: Any
    words: Any


def finisher(t: Tiling, epilogue: Epilogue) -> Callable[..., Any]:
    """(total, outside, tile, group, warp, lane): finish the sums of a warpgroup and write them."""
    outputs, rows, at_tile = t.problem.outputs, t.weight_rows, Places(t)
    finish, write = _values(t, epilogue), _write(t, epilogue)
    fixed = epilogue.fixed_point(t)
    dtype, shifted = ("int32", WIDTH) if fixed else ("float32", 1)
    sums = t.problem.operand.sums

    @T.inline
    def store(total, outside, tile, group, warp, lane):
        value = T.alloc_local([WIDTH], dtype)
        scales = T.alloc_local([WIDTH], dtype)
        shifts = T.alloc_local([shifted], "int32")
        biases = T.alloc_local([WIDTH], sums)
        for g in T.unroll(t.columns // PERMUTED):
            column = T.meta_var(tile[1] * t.columns + g * PERMUTED + (lane % 4) * WIDTH)
            if column < outputs:
                for j in T.unroll(WIDTH // 4):
                    for e in T.vectorized(4):
                        scales[j * 4 + e] = outside.scale[column + j * 4 + e]
                    if fixed:
                        for e in T.vectorized(4):
                            shifts[j * 4 + e] = outside.scale[rows + column + j * 4 + e]
                    for e in T.vectorized(4):
                        biases[j * 4 + e] = outside.bias[column + j * 4 + e]
                for half in T.unroll(2):
                    row = T.meta_var(group * 64 + warp * 16 + lane // 4 + half * 8)
                    pixel = T.meta_var(at_tile.pixel(tile[0], row))
                    if pixel[1]:
                        at_y = T.meta_var(pixel[0] * outputs + column)
                        finish(value, total, (g, half), (scales, shifts, biases), outside, at_y, column)
                        write(value, outside, at_y, column)

    return store


def _fma(a: Any, b: Any, c: Any) -> Any:
    return T.call_pure_extern("float32", "__fmaf_rn", a, b, c)


def _multiply(a: Any, b: Any) -> Any:
    return T.call_pure_extern("float32", "__fmul_rn", a, b)


def _at(where: Any, j: Any) -> Any:
    """The register of the accumulator that holds channel j of 16, in (group of columns, half of the rows)."""
    return (where[0] * 8 + j // 2) * 4 + where[1] * 2 + j % 2


def _values(t: Tiling, epilogue: Epilogue) -> Callable[..., Any]:
    """(value, total, (group of columns, half of the rows), …): 16 neighbouring channels of a pixel."""
    if epilogue.fixed_point(t):
        return _fixed(t, epilogue)
    outputs, wide = t.problem.outputs, t.problem.outputs % WIDTH == 0
    integer, with_residual = t.problem.operand.sums == "int32", epilogue.residual
    with_lo, with_hi = epilogue.lo > -float("inf"), epilogue.hi < float("inf")
    lo, hi = (epilogue.lo if with_lo else 0.0), (epilogue.hi if with_hi else 0.0)

    def summand(outside: Any, at: Any) -> Any:
        """The value of a residual."""
        if epilogue.residual_dtype != "int8":
            return T.Cast("float32", outside.residual[at])
        return T.Cast("float32", T.Cast("int32", outside.residual[at]) - epilogue.residual_zero_point)

    def scaled(total: Any, scale: Any, bias: Any) -> Any:
        if integer:
            return _multiply(T.Cast("float32", T.reinterpret("int32", total) + bias), scale)
        return _fma(total, scale, bias)

    @T.inline
    def finish(value, total, where, constants, outside, at_y, column):
        for j in T.unroll(WIDTH):
            value[j] = scaled(total[_at(where, j)], constants[0][j], constants[2][j])
            if wide or column + j < outputs:
                if with_residual:
                    value[j] = _fma(summand(outside, at_y + j), outside.factor[0], value[j])
                if with_lo:
                    value[j] = T.max(value[j], T.float32(lo))
                if with_hi:
                    value[j] = T.min(value[j], T.float32(hi))

    return finish


def _fixed(t: Tiling, epilogue: Epilogue) -> Callable[..., Any]:
    bounds = Bounds(epilogue.zero_point, int(epilogue.lo), int(epilogue.hi))

    def requantized(total: Any, bias: Any, multiplier: Any, shift: Any) -> Any:
        acc = T.reinterpret("int32", total) + bias
        return T.Cast("int32", requantize(acc, multiplier, shift, bounds, 1))

    @T.inline
    def finish(value, total, where, constants, outside, at_y, column):
        for j in T.unroll(WIDTH):
            value[j] = requantized(total[_at(where, j)], constants[2][j], constants[0][j], constants[1][j])

    return finish


def _write(t: Tiling, epilogue: Epilogue) -> Callable[..., Any]:
    """(value, outside, at_y, column): 16 channels of a pixel, in stores of 16 bytes where they fit."""
    outputs, wide = t.problem.outputs, t.problem.outputs % WIDTH == 0
    bytewise = epilogue.dtype in (fp8.DTYPE, "int8")
    piece = 4 if epilogue.dtype == "float32" else 8  # elements of a store of 16 bytes

    def whole(value: Any) -> Any:
        """An int8 as int32, which fixed point gives."""
        if epilogue.fixed_point(t):
            return value
        shifted = T.nearbyint(value) + T.float32(epilogue.zero_point)
        return T.Cast("int32", T.min(T.max(shifted, T.float32(-128)), T.float32(127)))

    def four(value: Any, first: Any) -> Any:
        """Four values as the bytes of a uint32."""
        if epilogue.dtype == fp8.DTYPE:
            return T.cuda.fp8x4_e4m3_from_float4(*[value[first + e] for e in range(4)])
        parts = [T.Cast("uint32", T.bitwise_and(whole(value[first + e]), 255)) for e in range(4)]
        joined = parts[0]
        for e in range(1, 4):
            joined = T.bitwise_or(joined, T.shift_left(parts[e], T.uint32(8 * e)))
        return joined

    def one(value: Any) -> Any:
        return T.Cast(epilogue.dtype, whole(value) if epilogue.dtype == "int8" else value)

    @T.inline
    def write_words(value, outside, at_y, column):
        word = T.alloc_local([4], "uint32")
        for j in T.unroll(4):
            word[j] = four(value, j * 4)
        for j in T.vectorized(4):
            outside.words[at_y // 4 + j] = word[j]

    @T.inline
    def write_pieces(value, outside, at_y, column):
        for j in T.unroll(WIDTH // piece):
            for e in T.vectorized(piece):
                outside.y[at_y + j * piece + e] = one(value[j * piece + e])

    @T.inline
    def write_each(value, outside, at_y, column):
        for j in T.unroll(WIDTH):
            if column + j < outputs:
                outside.y[at_y + j] = one(value[j])

    if not wide:
        return write_each
    return write_words if bytewise else write_pieces
