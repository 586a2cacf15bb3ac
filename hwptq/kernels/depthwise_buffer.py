"""Depthwise convolution by a dot-product instruction whose four rows are interleaved once, in a buffer.

Ahead of the outputs of one or two rows, the rows of their windows go to a buffer [groups, W, C, 4], with the
padding: four rows to a group, byte by byte. Its vectors are operands of the instruction as they are, so the
weights of a few channels stay in registers while a tile of pixels reads each column of its windows once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.operators.conv2d import Conv2d
from hwptq.targets.templates.depthwise_dot_product import DepthwiseDotKernel
from hwptq.tir.builder import (
    TEMPLATE,
    Expr,
    Flat,
    Parts,
    constant,
    dtype_of,
    local,
    loop,
    primfunc,
    share,
    shuffle,
    spans,
    start_of,
    unravel,
    workspace,
)
from hwptq.tir.encoding import encoded
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.layout import Layout, Padding
from hwptq.tir.requantize import Bounds, finish
from hwptq.tir.stored import Stored
from hwptq.tir.vector_unit import VectorUnit

from .choose_tile import row_pixels
from .convolution import Convolution, describe, wanted_padding
from .pack_weights import without_offset
from .result_range import proven
from .store_tile import store_part
from .vector_blocks import even

_COST = 8  # a multiply-accumulate here takes as long as so many of a convolution
_ROWS = 4  # that one instruction takes
_LANES = 16  # bytes of a row that are interleaved at once
_UNROLLED = 4  # of these vectors
_COLUMNS = 8  # of a window: more are not written out


@dataclass(frozen=True)
class Plan:
    """The convolution `conv`, whose `padding` x lacks, by blocks of channels and tiles of pixels of a row."""

    conv: Convolution
    padding: Padding
    kernel: DepthwiseDotKernel
    pixels: int  # of a tile
    together: int = 1  # pixels whose results are stored together: those of interleaved ones

    @property
    def outputs(self) -> int:
        """Output rows that share their input rows."""
        shared = self.conv.strides[0] == 1 and self.conv.dilation[0] == 1 and self.conv.out[0] > 1
        return 2 if shared else 1

    @property
    def rows(self) -> int:
        """Input rows of the windows of `outputs` rows."""
        return self.conv.kernel[0] + self.outputs - 1

    @property
    def groups(self) -> int:
        return -(-self.rows // _ROWS)

    @property
    def channels(self) -> int:
        """Of a block."""
        return self.kernel.lanes * self.kernel.resident_vectors

    @property
    def blocks(self) -> int:
        return -(-self.conv.ci // self.channels)

    @property
    def steps(self) -> int:
        """How often `outputs` rows are computed; the last ones overlap those before."""
        return -(-self.conv.out[0] // self.outputs)

    @property
    def elements(self) -> int:
        """Of the buffer."""
        return self.groups * self.conv.image[1] * self.conv.ci * _ROWS

    def channel_index(self) -> np.ndarray:
        """The channel of each lane, int [blocks, vectors, lanes]."""
        first = np.minimum(np.arange(self.blocks) * self.channels, self.conv.ci - self.channels)
        index = first[:, np.newaxis] + np.arange(self.channels)
        return index.reshape(self.blocks, self.kernel.resident_vectors, self.kernel.lanes)

    @property
    def height(self) -> int:
        """Of x."""
        return self.conv.image[0] - self.padding.top - self.padding.bottom

    @property
    def width(self) -> int:
        """Of x."""
        return self.conv.image[1] - self.padding.left - self.padding.right

    def inside(self, step: int) -> tuple[bool, ...]:
        """Which of the `rows` of a step are rows of x, and no padding."""
        conv = self.conv
        first = min(step * self.outputs, conv.out[0] - self.outputs) * conv.strides[0] - self.padding.top
        return tuple(0 <= first + k * conv.dilation[0] < self.height for k in range(self.rows))


def fits(op: Conv2d, x: TensorType, weight: Sequence[int], kernel: DepthwiseDotKernel) -> bool:
    """Whether depthwise_buffer takes a convolution with weights of this shape."""
    channels, kh, kw, _ = weight
    column = kw == wanted_padding(op).around(x.shape[1:3])[1] == 1  # would be turned to a row
    enough = 0 < kernel.lanes * kernel.resident_vectors <= channels
    return kh > 1 and kw <= _COLUMNS and enough and not column


def writes_interleaved(
    op: Conv2d, x: TensorType, weight: Sequence[int], out: TensorType, kernel: DepthwiseDotKernel,
    layout: Layout,
) -> bool:  # fmt: skip
    """Whether depthwise_buffer can write a layout of interleaved pixels: each store is a part of it."""
    if not fits(op, x, weight, kernel):
        return False
    width, channels = out.shape[2:]
    block, pixels = kernel.lanes * kernel.resident_vectors, even(width, kernel.tile_pixels)
    whole = width % pixels == 0 and pixels % layout.rows == 0 and channels % block == 0
    return whole and layout.k == block and layout.dtype == "int8"


def depthwise_buffer(
    op: Conv2d,
    x: TensorType,
    constants: Sequence[np.ndarray],
    out: TensorType,
    kernel: DepthwiseDotKernel,
    unit: VectorUnit,
    choice: int = 0,
) -> tuple[Step, ...]:
    """The step of a Conv2d with groups == I == O; `constants` are its weight, bias, multiplier and shift."""
    weight, bias, multiplier, shift = constants
    padding = wanted_padding(op)
    conv = describe(op, replace(x, layout=Layout(padding)), weight.shape, out)
    plan = Plan(conv, padding, kernel, _pixels(conv, kernel, out, choice), out.layout.rows)
    if kernel.unsigned_activation:
        bias = without_offset(bias, weight)
    index = plan.channel_index()
    arrays = [_pack_taps(weight, plan), *(values[index].reshape(-1) for values in (bias, multiplier, shift))]
    bounds = proven(op.bounds, constants)
    assert bounds is not None
    parts = unit.shared(_COST * prod(out.shape) * prod(conv.kernel))
    types = [x, *(TensorType(a.shape, str(a.dtype)) for a in arrays), out]
    func = primfunc(types, {TEMPLATE: kernel.template}, _emit(plan, x, bounds, out, unit, parts))
    return (Step(func, (0, *arrays), out, f"{op.kind}_{kernel.template}"),)


def _pixels(conv: Convolution, kernel: DepthwiseDotKernel, out: TensorType, choice: int) -> int:
    """Of a tile: the usual number, or for a `choice` above 0 another; whole groups of interleaved ones."""
    rows = out.layout.rows
    found = [
        p
        for p in row_pixels(conv.out[1], kernel.tile_pixels)
        if rows == 1 or p % rows == conv.out[1] % p == 0
    ]
    return found[min(choice, len(found) - 1)]


def _pack_taps(weight: np.ndarray, plan: Plan) -> np.ndarray:
    """int8 [C,KH,KW,1] -> [blocks, KW, groups, outputs, vectors, lanes * 4]: the operands in order of use."""
    kh, kw = plan.conv.kernel
    rows = np.zeros((plan.conv.ci, plan.outputs, plan.groups * _ROWS, kw), np.int8)
    for r in range(plan.outputs):
        rows[:, r, r : r + kh] = weight[..., 0]
    grouped = rows.reshape(-1, plan.outputs, plan.groups, _ROWS, kw)[plan.channel_index()]
    ordered = grouped.transpose(0, 6, 4, 3, 1, 2, 5)
    return np.ascontiguousarray(ordered).reshape(*ordered.shape[:5], -1)


def _emit(
    plan: Plan, image: TensorType, bounds: Bounds, out: TensorType, unit: VectorUnit, parts: Parts
) -> Callable[..., None]:
    """Code of (x, taps, bias, multiplier, shift, y). Each of `parts` has a buffer of its own."""
    conv = plan.conv
    dtype = "uint8" if plan.kernel.unsigned_activation else "int8"
    total = conv.batch * plan.steps

    def emit(x: Flat, taps: Flat, bias: Flat, multiplier: Flat, shift: Flat, y: Flat) -> None:
        source = Stored(x, image)

        def part(first: Expr, count: Expr) -> None:
            buffer = workspace(plan.elements, dtype)

            def step(n: Expr) -> None:
                b, at = unravel(first + n, (conv.batch, plan.steps))
                row = start_of(at, plan.outputs, conv.out[0])
                _interleave(plan, source, buffer, b, at, row)
                loop(plan.blocks, lambda block: blocks(b, row, block))

            def blocks(b: Expr, row: Expr, block: Expr) -> None:
                def tile(t: Expr) -> None:
                    x0 = start_of(t, plan.pixels, conv.out[1])
                    factors = [bias, multiplier, shift]
                    _tile(plan, bounds, unit, buffer, taps, factors, y, (b, row, x0), block)

                loop(-(-conv.out[1] // plan.pixels), tile)

            _fill_columns(plan, buffer)
            loop(count, step)

        share(total, parts, part, Stored(y, out).border(unit))

    return emit


def _interleave(plan: Plan, x: Stored, buffer: Flat, b: Expr, step: Expr, row: Expr) -> None:
    """Write the input rows of output rows `row`, ... of step `step` to the buffer, with their padding."""
    runs = [(kind, len(list(same))) for kind, same in groupby(plan.inside(s) for s in range(plan.steps))]

    def choose(number: int, begin: int) -> None:
        """The code for the kind of rows of this step: steps of a kind follow one another."""
        kind, count = runs[number]
        if number == len(runs) - 1:
            _interleave_rows(plan, x, buffer, b, row, kind)
            return
        with T.If(step < begin + count):
            with T.Then():
                _interleave_rows(plan, x, buffer, b, row, kind)
            with T.Else():
                choose(number + 1, begin + count)

    choose(0, 0)


def _interleave_rows(
    plan: Plan, x: Stored, buffer: Flat, b: Expr, row: Expr, inside: tuple[bool, ...]
) -> None:
    """The same where it is known which rows are `inside` x."""
    conv, padding, c = plan.conv, plan.padding, plan.conv.ci
    h, line = plan.height, plan.width * c
    first = row * conv.strides[0] - padding.top
    border = _border(plan, buffer.dtype)

    def group(g: int) -> None:
        target = (g * conv.image[1] + padding.left) * c * _ROWS
        # rows beyond the windows meet weights of 0: the last one is taken again
        rows = [min(g * _ROWS + k, plan.rows - 1) for k in range(_ROWS)]
        starts = {k: x.pixel(b, T.max(0, T.min(first + k * conv.dilation[0], h - 1)), 0) for k in rows}

        def vector(i: Expr, m: int) -> None:
            loaded = {
                k: T.bind(encoded(x.load(start + i, m), buffer.dtype, m)) if inside[k] else _part(border, m)
                for k, start in starts.items()
            }
            order = [r * m + lane for lane in range(m) for r in range(_ROWS)]
            buffer.store(target + i * _ROWS, shuffle([loaded[k] for k in rows], order), m * _ROWS)

        def vectors(i: Expr) -> None:
            for u in range(_UNROLLED):
                vector((i * _UNROLLED + u) * _LANES, _LANES)

        full, rest = divmod(line, _UNROLLED * _LANES)
        if full:
            loop(full, vectors)
        if rest:
            spans(rest, _LANES, lambda i, m, _: vector(line - rest + i, m))

    for g in range(plan.groups):
        group(g)


def _fill_columns(plan: Plan, buffer: Flat) -> None:
    """Write the padding at the left and right of the rows, which stays."""
    unit = plan.conv.ci * _ROWS
    border = _border(plan, buffer.dtype)
    sides = ((0, plan.padding.left), (plan.padding.left + plan.width, plan.padding.right))

    def fill(at: Expr, elements: int) -> None:
        spans(elements, _LANES, lambda i, m, _: buffer.store(at + i, _part(border, m), m))

    for g in range(plan.groups):
        for column, columns in sides:
            if columns:
                fill((g * plan.conv.image[1] + column) * unit, columns * unit)


def _border(plan: Plan, dtype: str) -> Expr:
    return constant(plan.padding.value + (128 if dtype == "uint8" else 0), dtype, _LANES)


def _part(vector: Expr, lanes: int) -> Expr:
    whole = int(vector.ty.dtype.lanes)
    return vector if lanes == whole else shuffle([vector], range(lanes))


def _tile(
    plan: Plan, bounds: Bounds, unit: VectorUnit, buffer: Flat, taps: Flat, factors: Sequence[Flat], y: Flat,
    at: tuple[Expr, Expr, Expr], block: Expr,
) -> None:  # fmt: skip
    """Compute a tile of pixels of `outputs` rows for one block of channels; `at` is its (b, row, column)."""
    conv, kernel, lanes = plan.conv, plan.kernel, plan.kernel.lanes
    b, row, x0 = at
    size = plan.channels
    channel = start_of(block, size, conv.ci)
    bias, multiplier, shift = (T.bind(f.load(block * size, size)) for f in factors)
    width = lanes * _ROWS
    per_tap = plan.groups * plan.outputs * kernel.resident_vectors

    def vectors(values: Expr) -> list[Expr]:
        return [shuffle([values], range(q * lanes, (q + 1) * lanes)) for q in range(kernel.resident_vectors)]

    acc: dict[tuple[int, int], list[Flat]] = {}
    for p in range(plan.pixels):
        for r in range(plan.outputs):
            acc[r, p] = [local(lanes, "int32") for _ in range(kernel.resident_vectors)]
            for cell, value in zip(acc[r, p], vectors(bias), strict=True):
                cell.store(0, value, lanes)

    def column(x: int, uses: list[tuple[int, int]]) -> None:
        for g in range(plan.groups):
            first = ((g * conv.image[1] + x0 * conv.strides[1] + x) * conv.ci + channel) * _ROWS
            operands = [T.bind(buffer.load(first + q * width, width)) for q in range(kernel.resident_vectors)]
            for p, kx in uses:
                for r in range(plan.outputs):
                    tap = (block * conv.kernel[1] + kx) * per_tap
                    tap += (g * plan.outputs + r) * kernel.resident_vectors
                    for q, cell in enumerate(acc[r, p]):
                        weight = taps.load((tap + q) * width, width)
                        cell.store(0, _accumulate(kernel, cell.load(0, lanes), operands[q], weight), lanes)

    def store(p: int) -> None:
        """The results of `together` pixels of each row, of which p is the last."""
        count, first = plan.together, p - plan.together + 1
        total = count * size
        scales = [T.bind(shuffle([f] * count, range(total))) if count > 1 else f for f in (multiplier, shift)]
        for r in range(plan.outputs):
            cells = [cell for i in range(count) for cell in acc[r, first + i]]
            sums = T.bind(shuffle([cell.load(0, lanes) for cell in cells], range(total)))
            result = T.bind(finish(sums, scales, bounds, total, unit.requantize, y.dtype))
            offset = conv.pixel(b, row + r, x0 + first) + channel
            if count > 1:  # [channels / size, pixels, size]
                pixel = (b * conv.out[0] + row + r) * conv.out[1] + x0 + first
                offset = (block * conv.batch * prod(conv.out) + pixel) * size
            store_part(y, offset, result, total, 0, total, unit.masked)

    columns = shared_columns(conv, plan.pixels)
    last = {p: x for x, uses in columns.items() for p, _ in uses}
    for x, uses in columns.items():
        column(x, uses)
        for p in [p for p, end in last.items() if end == x]:
            if p % plan.together == plan.together - 1:
                store(p)


def _accumulate(kernel: DepthwiseDotKernel, acc: Expr, activation: Expr, weight: Expr) -> Expr:
    lanes = kernel.lanes
    typed = dtype_of("int32", lanes) if kernel.operands_as_int32 else dtype_of("int8", _ROWS * lanes)
    operands = (T.reinterpret(typed, v) for v in (activation, weight))
    return T.call_llvm_pure_intrin(dtype_of("int32", lanes), kernel.intrinsic, acc, *operands)


def shared_columns(conv: Convolution, pixels: int) -> dict[int, list[tuple[int, int]]]:
    """Column of the image -> the (pixel, tap) pairs that read it."""
    columns: dict[int, list[tuple[int, int]]] = {}
    for p in range(pixels):
        for kx in range(conv.kernel[1]):
            columns.setdefault(p * conv.strides[1] + kx * conv.dilation[1], []).append((p, kx))
    return dict(sorted(columns.items()))
