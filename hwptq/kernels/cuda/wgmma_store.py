"""The end of a tile of the wgmma kernel: scale, bias, residual, clamp, and rounding to the output's dtype."""

# TVMScript is parsed and never run as Python.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm.script import tirx as T

from hwptq.quant import fp8

from .tiling import PERMUTED, Tiling
from .wgmma_places import Places

WIDTH = 16  # neighbouring channels of a thread


@dataclass(frozen=True)
class Epilogue:
    """What becomes of a sum: fma(sum, scale, bias), fma(residual, factor, that), a clamp, and `dtype`."""

    dtype: str
    lo: float
    hi: float
    residual: bool = False


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
    outputs, at_tile = t.problem.outputs, Places(t)
    finish, write = _values(t, epilogue), _write(t, epilogue)

    @T.inline
    def store(total, outside, tile, group, warp, lane):
        value = T.alloc_local([WIDTH], "float32")
        scales = T.alloc_local([WIDTH], "float32")
        biases = T.alloc_local([WIDTH], "float32")
        for g in T.unroll(t.columns // PERMUTED):
            column = T.meta_var(tile[1] * t.columns + g * PERMUTED + (lane % 4) * WIDTH)
            if column < outputs:
                for j in T.unroll(WIDTH // 4):
                    for e in T.vectorized(4):
                        scales[j * 4 + e] = outside.scale[column + j * 4 + e]
                    for e in T.vectorized(4):
                        biases[j * 4 + e] = outside.bias[column + j * 4 + e]
                for half in T.unroll(2):
                    row = T.meta_var(group * 64 + warp * 16 + lane // 4 + half * 8)
                    pixel = T.meta_var(at_tile.pixel(tile[0], row))
                    if pixel[1]:
                        at_y = T.meta_var(pixel[0] * outputs + column)
                        finish(value, total, (g, half), scales, biases, outside, at_y, column)
                        write(value, outside, at_y, column)

    return store


def _fma(a: Any, b: Any, c: Any) -> Any:
    return T.call_pure_extern("float32", "__fmaf_rn", a, b, c)


def _values(t: Tiling, epilogue: Epilogue) -> Callable[..., Any]:
    """(value, total, (group of columns, half of the rows), …): 16 neighbouring channels of a pixel."""
    outputs, wide = t.problem.outputs, t.problem.outputs % WIDTH == 0
    with_residual = epilogue.residual
    with_lo, with_hi = epilogue.lo > -float("inf"), epilogue.hi < float("inf")
    lo, hi = (epilogue.lo if with_lo else 0.0), (epilogue.hi if with_hi else 0.0)

    @T.inline
    def finish(value, total, where, scales, biases, outside, at_y, column):
        for j in T.unroll(WIDTH):
            value[j] = _fma(total[(where[0] * 8 + j // 2) * 4 + where[1] * 2 + j % 2], scales[j], biases[j])
            if wide or column + j < outputs:
                if with_residual:
                    value[j] = _fma(
                        T.Cast("float32", outside.residual[at_y + j]), outside.factor[0], value[j]
                    )
                if with_lo:
                    value[j] = T.max(value[j], T.float32(lo))
                if with_hi:
                    value[j] = T.min(value[j], T.float32(hi))

    return finish


def _write(t: Tiling, epilogue: Epilogue) -> Callable[..., Any]:
    """(value, outside, at_y, column): 16 channels of a pixel, in stores of 16 bytes where they fit."""
    outputs, wide = t.problem.outputs, t.problem.outputs % WIDTH == 0
    to_e4m3 = epilogue.dtype == fp8.DTYPE
    piece = 4 if epilogue.dtype == "float32" else 8  # elements of a store of 16 bytes

    @T.inline
    def write_words(value, outside, at_y, column):
        word = T.alloc_local([4], "uint32")
        for j in T.unroll(4):
            word[j] = T.cuda.fp8x4_e4m3_from_float4(*[value[j * 4 + e] for e in range(4)])
        for j in T.vectorized(4):
            outside.words[at_y // 4 + j] = word[j]

    @T.inline
    def write_pieces(value, outside, at_y, column):
        for j in T.unroll(WIDTH // piece):
            for e in T.vectorized(piece):
                outside.y[at_y + j * piece + e] = T.Cast(epilogue.dtype, value[j * piece + e])

    @T.inline
    def write_each(value, outside, at_y, column):
        for j in T.unroll(WIDTH):
            if column + j < outputs:
                outside.y[at_y + j] = T.Cast(epilogue.dtype, value[j])

    if not wide:
        return write_each
    return write_words if to_e4m3 else write_pieces
