"""The product of two matrices by warps on their own, for GPUs without wgmma: NVIDIA Ada and later ones.

A warp computes 16 rows and `columns` channels of the output with mma.sync.m16n8k32, whose operands every
thread loads by itself, four neighbouring channels at a time. Simple, not tuned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import tvm
from tvm.script import tirx as ptx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import Expr, Flat, cast, constant, loop
from hwptq.tir.kernel import TensorType

from .flat import PIPELINE, real
from .places import all_of
from .results import result
from .tiling import Problem, round_up

ROWS = 16  # of the output, to a warp
COLUMNS = 8  # of an instruction
_WARP = 32
_LOADED = 4  # channels in a register of an operand


@dataclass(frozen=True)
class WarpTiling:
    """A block of `warps` warps one above the other, each with `columns` output channels."""

    problem: Problem
    columns: int
    warps: int

    @property
    def chunks(self) -> int:
        """Instructions through the channels of one tap."""
        return -(-self.problem.images[3] // self.problem.step)

    @property
    def weight_rows(self) -> int:
        return round_up(self.problem.outputs, self.columns)

    @property
    def weight_depth(self) -> int:
        return self.problem.taps * self.chunks * self.problem.step

    @property
    def grid(self) -> tuple[int, int]:
        """Blocks over rows and over channels of the output."""
        return -(-self.problem.rows // (ROWS * self.warps)), self.weight_rows // self.columns


def mma_kernel(
    op: Any, t: WarpTiling, tensors: Sequence[TensorType], out: TensorType, fill: int,
    attributes: dict[str, Any],
) -> tvm.tirx.PrimFunc:  # fmt: skip
    """(x, residual if any, w, the other constants of `op`) -> y.

    `tensors` are the types of all but y. w [weight_rows, weight_depth] has zeros where a tap or the last rows
    are filled up; `fill` is what the padding of x holds.
    """
    position = 1 + bool(getattr(op, "residual", 0))  # of w
    with IRBuilder() as builder, T.prim_func():
        T.func_name("kernel")
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, PIPELINE: "s_tir", **attributes})
        names = [*(f"in{i}" for i in range(len(tensors))), "out"]
        params = [
            T.arg(name, T.buffer(k.shape, k.dtype)) for name, k in zip(names, [*tensors, out], strict=True)
        ]
        flat = [_flat(p, k) for p, k in zip(params, [*tensors, out], strict=True)]
        x, w = (_words(params[i], tensors[i]) for i in (0, position))
        rest = [f for i, f in enumerate(flat[:-1]) if i not in (0, position)]
        with (
            T.thread_binding(t.grid[0], thread="blockIdx.x") as row_block,
            T.thread_binding(t.grid[1], thread="blockIdx.y") as column_block,
            T.thread_binding(t.warps, thread="threadIdx.y") as warp,
            T.thread_binding(_WARP, thread="threadIdx.x") as lane,
        ):
            first = (row_block * t.warps + warp) * ROWS + T.floordiv(lane, 4)
            column = column_block * t.columns
            total = _summed(t, x, w, first, column, lane, fill)
            _finish(op, t, total, first, column, lane, rest, flat[-1])
    return builder.get().without_attr("global_symbol")


def _flat(param: Any, tensor: TensorType) -> Flat:
    size = prod(tensor.shape)
    return Flat(T.decl_buffer((size,), tensor.dtype, data=param.data), tensor.dtype, size)


def _words(param: Any, tensor: TensorType) -> Flat:
    """A tensor of bytes by groups of four."""
    size = prod(tensor.shape) // _LOADED
    return Flat(T.decl_buffer((size,), "uint32", data=param.data), "uint32", size)


def _registers(count: int, dtype: str) -> Flat:
    return Flat(T.alloc_buffer((count,), dtype, scope="local"), dtype, count)


def _zero(registers: Flat) -> None:
    zero = real(0.0) if registers.dtype == "float32" else constant(0, registers.dtype)
    for i in range(registers.size):
        registers.store(i, zero)


def _summed(t: WarpTiling, x: Flat, w: Flat, first: Expr, column: Expr, lane: Expr, fill: int) -> Flat:
    """The registers with the sums of a thread: two rows, eight apart, of two channels of every eight."""
    p, groups = t.problem, t.columns // COLUMNS
    total, partial = (_registers(4 * groups, p.operand.registers) for _ in range(2))
    a, b = _registers(4, "uint32"), _registers(2, "uint32")
    sums = partial if p.promote else total
    pixels = [_pixel(p, first + half * 8) for half in range(2)]
    _zero(total)
    _zero(partial)

    def step(tap: Expr, chunk: Expr) -> None:
        for half in range(2):
            for part in range(2):
                channel = chunk * p.step + part * 16 + T.floormod(lane, 4) * _LOADED
                a.store(part * 2 + half, _loaded(p, x, pixels[half], tap, channel, fill))
        for g in range(groups):
            row = column + g * COLUMNS + T.floordiv(lane, 4)
            at = row * t.weight_depth + (tap * t.chunks + chunk) * p.step + T.floormod(lane, 4) * _LOADED
            for part in range(2):
                b.store(part, w.load(T.floordiv(at, _LOADED) + part * 4))
            own = [sums.load(g * 4 + i) for i in range(4)]
            operands = [*(a.load(i) for i in range(4)), *(b.load(i) for i in range(2))]
            T.evaluate(ptx.ptx[p.operand.warp_instruction](*own, *operands, *own))
        if p.promote:
            every = p.promote // p.step
            with T.If(T.floormod(tap * t.chunks + chunk, every) == every - 1), T.Then():
                _promote(total, partial)

    loop(p.taps, lambda tap: loop(t.chunks, lambda chunk: step(tap, chunk)))
    if p.promote:
        _promote(total, partial)
    return total


def _promote(total: Flat, partial: Flat) -> None:
    for i in range(total.size):
        total.store(i, total.load(i) + partial.load(i))
    _zero(partial)


def _pixel(p: Problem, row: Expr) -> tuple[Expr, Expr, Expr]:
    """Image, row and column of an output pixel."""
    oh, ow = p.out_shape
    return T.floordiv(row, oh * ow), T.floormod(T.floordiv(row, ow), oh), T.floormod(row, ow)


def _loaded(p: Problem, x: Flat, pixel: Sequence[Expr], tap: Expr, channel: Expr, fill: int) -> Expr:
    """Four channels of the pixel that a tap sees; beyond the image the padding, beyond the channels zeros."""
    n, h, w, c = p.images
    image, oy, ox = pixel
    row = oy * p.strides[0] + T.floordiv(tap, p.kernel[1]) * p.dilation[0] - p.padding[0]
    col = ox * p.strides[1] + T.floormod(tap, p.kernel[1]) * p.dilation[1] - p.padding[1]
    at = T.floordiv(((image * h + row) * w + col) * c + channel, _LOADED)
    inside = all_of([image < n, row >= 0, row < h, col >= 0, col < w, channel < c])
    return T.if_then_else(inside, x.load(at), constant((fill & 255) * 0x01010101, "uint32"))


def _finish(
    op: Any, t: WarpTiling, total: Flat, first: Expr, column: Expr, lane: Expr, rest: list[Flat], y: Flat
) -> None:  # fmt: skip
    p = t.problem
    for g in range(t.columns // COLUMNS):
        for i in range(4):
            row = first + (i // 2) * 8
            channel = column + g * COLUMNS + T.floormod(lane, 4) * 2 + i % 2
            with T.If(T.And(row < p.rows, channel < p.outputs)), T.Then():
                acc, at = total.load(g * 4 + i), row * p.outputs + channel
                if p.operand.sums == "int32":
                    acc = cast(acc, "int32")
                y.store(at, result(op, acc, channel, at, rest))
