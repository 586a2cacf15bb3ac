"""The end of a tile of the wgmma kernel: scale, bias, residual, clamp, and rounding to the output's dtype."""

# TVMScript is parsed and never run as Python.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm.script import tirx as T

from hwptq.formats import fp8
from hwptq.tir.requantize import Bounds

from .inline import inline
from .operand import item_bytes
from .tiling import STORE, STRIP, Tiling
from .wgmma_places import Places


@dataclass(frozen=True)
class Epilogue:
    """What becomes of a sum.

    Of a sum of e4m3: fma(sum, scale, bias), fma(value of the residual, factor, that), a clamp to [lo, hi],
    and `dtype`, as operators/float_operator.py says. Of one of int8: sum + bias, then in int8 and int16 a
    multiplier and a shift, as fixed_point.requantize has it, in any other dtype a float32 scale, a clamp,
    and `dtype`.
    Such an integer may have a zero point of its channel, behind multipliers and shifts, and may become what a
    table of so many bytes has for it, the entry of 0 in the middle. A float32 of int8 may be `rescaled`
    before its clamp: fma(that, scale of its row, offset of its channel), as operators/rows.py says; the
    offsets stand behind the scales.
    """

    dtype: str
    lo: float
    hi: float
    residual: bool = False
    zero_point: int = 0
    residual_dtype: str = fp8.DTYPE
    residual_zero_point: int = 0
    zero_points: bool = False
    table: int = 0
    rescaled: bool = False

    def fixed_point(self, t: Tiling) -> bool:
        """Whether an int32 becomes an int8 or int16 without a float32 between."""
        return t.problem.operand.sums == "int32" and self.dtype in ("int8", "int16")


@dataclass(frozen=True)
class Outside:
    """What the end of a tile reads and writes, as flat buffers; words are units of 4 bytes."""

    scale: Any
    bias: Any
    residual: Any
    residual_words: Any
    factor: Any
    y: Any
    words: Any
    table: Any = None
    row_scales: Any = None


def finisher(t: Tiling, epilogue: Epilogue) -> Callable[..., Any]:
    """(total, outside, tile, the first row of the warpgroup, thread): finish its sums and write them."""
    outputs, at_tile, width = t.problem.outputs, Places(t), t.problem.width
    fixed, sums = epilogue.fixed_point(t), t.problem.operand.sums
    dtype, shifted = ("int32", width) if fixed else ("float32", 1)
    own_zeros, rescaled = fixed and epilogue.zero_points, epilogue.rescaled
    rows, across = 2 * t.tile.strips, t.columns // (4 * width)
    finish, write, fetch = _values(t, epilogue), _write(t, epilogue), _fetch(t, epilogue)
    summands, size = rows * across * width if epilogue.residual else 4, item_bytes(epilogue.residual_dtype)

    @inline
    def store(total, outside, tile, first, thread):
        warp, lane = T.meta_var(thread[1]), T.meta_var(thread[2])
        value = T.alloc_local([width], dtype)
        scales = T.alloc_local([width], dtype)
        shifts = T.alloc_local([shifted], "int32")
        halves = T.alloc_local([shifted], "int32")
        zeros = T.alloc_local([shifted if own_zeros else 1], "int32")
        biases = T.alloc_local([width], sums)
        offsets = T.alloc_local([width if rescaled else 1], "float32")
        row_scales = T.alloc_local([rows if rescaled else 1], "float32")
        begins = T.alloc_local([rows], "int32")
        for r in T.unroll(rows):
            row = T.meta_var(first + r // 2 * STRIP + warp * 16 + lane // 4 + r % 2 * 8)
            pixel = T.meta_var(at_tile.pixel(tile[0], row))
            begins[r] = T.if_then_else(pixel[1], pixel[0] * outputs, -1)
            if rescaled:
                row_scales[r] = T.if_then_else(pixel[1], outside.row_scales[pixel[0]], T.float32(0))
        constants = T.meta_var((scales, shifts, biases, halves, zeros, offsets, row_scales))
        words = T.alloc_local([summands * size // 4], "uint32")
        codes = T.decl_buffer((summands,), epilogue.residual_dtype, data=words.data, scope="local")
        fetch(words, outside, begins, tile, lane)
        for g in T.unroll(across):
            column = T.meta_var(tile[1] * t.columns + g * (4 * width) + (lane % 4) * width)
            if column < outputs:
                for j in T.unroll(width // 4):
                    for e in T.vectorized(4):
                        scales[j * 4 + e] = outside.scale[column + j * 4 + e]
                    if fixed:
                        for e in T.vectorized(4):
                            shifts[j * 4 + e] = outside.scale[t.weight_rows + column + j * 4 + e]
                    if own_zeros:
                        for e in T.vectorized(4):
                            zeros[j * 4 + e] = outside.scale[2 * t.weight_rows + column + j * 4 + e]
                    if rescaled:
                        for e in T.vectorized(4):
                            offsets[j * 4 + e] = outside.scale[t.weight_rows + column + j * 4 + e]
                    for e in T.vectorized(4):
                        biases[j * 4 + e] = outside.bias[column + j * 4 + e]
                if fixed:
                    for j in T.unroll(width):
                        biases[j] = biases[j] + biases[j]
                        halves[j] = T.shift_left(1, shifts[j] - 1)
                for r in T.unroll(rows):
                    if begins[r] >= 0:
                        at_sum = T.meta_var(r // 2 * t.strip_registers + g * width * 2 + r % 2 * 2)
                        at_code = T.meta_var((g * rows + r) * width)
                        finish(
                            value,
                            total,
                            at_sum,
                            constants,
                            codes,
                            at_code,
                            outside,
                            begins[r] + column,
                            column,
                            r,
                        )
                        write(value, outside, begins[r] + column, column)

    return store


#: A byte of a table in shared memory.
_ENTRY = """
static __device__ __forceinline__ int hwptq_entry(const void* table, int at) {
  return ((const signed char*)table)[at];
}
"""
#: fixed_point.requantize without its bounds, of (sum, twice a bias, multiplier, shift, 2^(shift-1)). TVM
#: would widen the sum before it is added up, and multiply 64 bits by 64.
_SCALED = """
static __device__ __forceinline__ int hwptq_scaled(int sum, int bias, int multiplier, int shift, int half) {
  long long product = (long long)(sum + sum + bias) * multiplier + 0x80000000LL;
  return ((int)(product >> 32) + half) >> shift;
}
"""


def _fma(a: Any, b: Any, c: Any) -> Any:
    return T.call_pure_extern("float32", "__fmaf_rn", a, b, c)


def _multiply(a: Any, b: Any) -> Any:
    return T.call_pure_extern("float32", "__fmul_rn", a, b)


def _at(at_sum: Any, j: Any) -> Any:
    """The register of the accumulator that holds channel j from that at `at_sum` on."""
    return at_sum + j // 2 * 4 + j % 2


def _values(t: Tiling, epilogue: Epilogue) -> Callable[..., Any]:
    """(value, total, its first sum, constants, …): neighbouring channels of a pixel."""
    if epilogue.fixed_point(t):
        return _fixed(t, epilogue)
    rescaled = epilogue.rescaled
    width, integer, with_residual = t.problem.width, t.problem.operand.sums == "int32", epilogue.residual
    add = _residual(t, epilogue)
    with_lo, with_hi = epilogue.lo > -float("inf"), epilogue.hi < float("inf")
    lo, hi = (epilogue.lo if with_lo else 0.0), (epilogue.hi if with_hi else 0.0)

    def scaled(total: Any, scale: Any, bias: Any) -> Any:
        if integer:
            return _multiply(T.Cast("float32", T.reinterpret("int32", total) + bias), scale)
        return _fma(total, scale, bias)

    @inline
    def finish(value, total, at_sum, constants, codes, at_code, outside, at_y, column, row):
        for j in T.unroll(width):
            value[j] = scaled(total[_at(at_sum, j)], constants[0][j], constants[2][j])
        if rescaled:
            for j in T.unroll(width):
                value[j] = _fma(value[j], constants[6][row], constants[5][j])
        if with_residual:
            add(value, codes, at_code, outside, at_y, column)
        for j in T.unroll(width):
            if with_lo:
                value[j] = T.max(value[j], T.float32(lo))
            if with_hi:
                value[j] = T.min(value[j], T.float32(hi))

    return finish


def _residual(t: Tiling, epilogue: Epilogue) -> Callable[..., Any]:
    """(value, codes, the first of them, outside, at_y, column): add the residual of neighbouring channels."""
    outputs, width, dtype = t.problem.outputs, t.problem.width, epilogue.residual_dtype

    def real(code: Any) -> Any:
        """The value of a residual."""
        if dtype != "int8":
            return T.Cast("float32", code)
        return T.Cast("float32", T.Cast("int32", code) - epilogue.residual_zero_point)

    @inline
    def add(value, codes, at_code, outside, at_y, column):
        if outputs % width != 0:
            for j in T.unroll(width):
                if column + j < outputs:
                    codes[at_code + j] = outside.residual[at_y + j]
        for j in T.unroll(width):
            value[j] = _fma(real(codes[at_code + j]), outside.factor[0], value[j])

    return add


def _fetch(t: Tiling, epilogue: Epilogue) -> Callable[..., Any]:
    """(words, outside, begins, tile, lane): load a tile's residuals, all at once, where they fit words."""
    outputs, width = t.problem.outputs, t.problem.width
    rows, across = 2 * t.tile.strips, t.columns // (4 * width)
    each = item_bytes(epilogue.residual_dtype)
    size = width * each // 4  # words of neighbouring channels
    loaded = min(size, STORE // 4)
    at_once = epilogue.residual and outputs % width == 0

    @inline
    def fetch(words, outside, begins, tile, lane):
        if at_once:
            for g in T.unroll(across):
                column = T.meta_var(tile[1] * t.columns + g * (4 * width) + (lane % 4) * width)
                for r in T.unroll(rows):
                    if begins[r] >= 0 and column < outputs:
                        at_word = T.meta_var((begins[r] + column) * each // 4)
                        for j in T.unroll(size // loaded):
                            for e in T.vectorized(loaded):
                                words[(g * rows + r) * size + j * loaded + e] = outside.residual_words[
                                    at_word + j * loaded + e
                                ]

    return fetch


def _fixed(t: Tiling, epilogue: Epilogue) -> Callable[..., Any]:
    bounds = Bounds(epilogue.zero_point, int(epilogue.lo), int(epilogue.hi), dtype=epilogue.dtype)
    width = t.problem.width

    def requantized(total: Any, constants: Any, j: Any) -> Any:
        multipliers, shifts, biases, halves, zeros, *_ = constants
        args = T.reinterpret("int32", total), biases[j], multipliers[j], shifts[j], halves[j]
        scaled = T.cuda.func_call("hwptq_scaled", *args, source_code=_SCALED, return_type="int32")
        shifted = scaled + (zeros[j] if epilogue.zero_points else bounds.zero_point)
        return T.min(T.max(shifted, T.int32(bounds.lo)), T.int32(bounds.hi))

    def looked_up(code: Any, outside: Any) -> Any:
        if not epilogue.table:
            return code
        args = outside.table.ptr_to([0]), code + epilogue.table // 2
        return T.cuda.func_call("hwptq_entry", *args, source_code=_ENTRY, return_type="int32")

    @inline
    def finish(value, total, at_sum, constants, codes, at_code, outside, at_y, column, row):
        for j in T.unroll(width):
            value[j] = looked_up(requantized(total[_at(at_sum, j)], constants, j), outside)

    return finish


def _write(t: Tiling, epilogue: Epilogue) -> Callable[..., Any]:
    """(value, outside, at_y, column): neighbouring channels of a pixel, in one store where they fit."""
    outputs, width = t.problem.outputs, t.problem.width

    def whole(value: Any) -> Any:
        """An integer as int32, which fixed point gives."""
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

    @inline
    def write_words(value, outside, at_y, column):
        word = T.alloc_local([4], "uint32")
        for j in T.unroll(4):
            word[j] = four(value, j * 4)
        for j in T.vectorized(4):
            outside.words[at_y // 4 + j] = word[j]

    @inline
    def write_piece(value, outside, at_y, column):
        for e in T.vectorized(width):
            outside.y[at_y + e] = one(value[e])

    @inline
    def write_each(value, outside, at_y, column):
        for j in T.unroll(width):
            if column + j < outputs:
                outside.y[at_y + j] = one(value[j])

    if outputs % width:
        return write_each
    return write_words if width == 16 else write_piece
