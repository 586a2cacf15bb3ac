"""Depthwise convolution by a dot-product instruction: its four products are four rows of a window.

Four vectors of neighbouring elements, one of each row, are interleaved byte by byte, so that a lane of the
instruction sees one channel in four rows. With stride 1 the rows serve two rows of outputs, the second one
with its weights moved down by one.

A vector is cut in one of two ways. By rows: with stride 1 the elements of a row of pixels are taken as they
lie in memory, whatever the number of channels; each vector has its own pattern of channels, and these repeat.
By tiles: a vector of channels in a few neighbouring pixels, which share their interleaved columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.quant import integer_ops as ops
from hwptq.quant.fixed_point import MAX_SHIFT
from hwptq.targets.kernel_tables import DepthwiseDotKernel, DepthwiseKernel

from .builder import (
    TEMPLATE,
    Expr,
    Flat,
    dtype_of,
    every_other,
    local,
    loop,
    nest,
    primfunc,
    share,
    shuffle,
    unravel,
)
from .convolution import Convolution, bounds_of, describe, wanted_padding
from .depthwise import depthwise
from .depthwise_buffer import depthwise_buffer, fits
from .kernel import PREVIOUS, Step, TensorType
from .layout import PLAIN, Layout
from .pack_input import Packing, pack_input
from .pack_weights import without_offset
from .register_tile import even
from .requantize import Bounds, requantize_blocks
from .scratchpad import emit_bands, plan_bands
from .store_tile import store_part
from .stored import Stored
from .vector_unit import VectorUnit

_COST = 8  # a multiply-accumulate here takes as long as so many of a convolution
_ROWS = 4  # of a window that one instruction takes
_UNROLLED_COLUMNS = 8  # of a window, where pixels share them


@dataclass(frozen=True)
class Plan:
    """How the outputs of a convolution are cut into vectors of `width` bytes.

    A line is what one loop over vectors covers: a row of pixels where they can be read as they lie, else the
    channels of one pixel, of `pixels` neighbours at once. `first_channels` are those of the distinct vectors;
    vector i < `vectors` of a line begins with that of `pattern(i)`.
    """

    conv: Convolution
    width: int
    pixels: int = 1
    block: int = 16  # bytes within which the device interleaves vectors

    @property
    def by_rows(self) -> bool:
        return self.conv.strides[1] == 1 and self.pixels == 1

    @property
    def line(self) -> int:
        return self.conv.ci * (self.conv.out[1] if self.by_rows else 1)

    @property
    def vectors(self) -> int:
        return -(-self.line // self.width)

    @property
    def outputs(self) -> int:
        """Output rows that share their input rows."""
        shared = self.conv.strides[0] == 1 and self.conv.dilation[0] == 1 and self.conv.out[0] > 1
        return 2 if shared else 1

    @property
    def groups(self) -> int:
        """Groups of input rows under one column of a window."""
        return -(-(self.conv.kernel[0] + self.outputs - 1) // _ROWS)

    @property
    def _starts(self) -> list[int]:
        return [max(0, min(i * self.width, self.line - self.width)) for i in range(self.vectors)]

    @property
    def first_channels(self) -> list[int]:
        return list(dict.fromkeys(start % self.conv.ci for start in self._starts))

    def start(self, i: Expr) -> Expr:
        """First element of vector i; the last one overlaps the one before it."""
        if self.vectors == 1:
            return 0
        last = self.line - self.width
        return i * self.width if self.line % self.width == 0 else T.min(i * self.width, last)

    def pattern(self, i: Expr) -> Expr:
        """Index of vector i in `first_channels`."""
        if self.vectors == 1:
            return 0
        distinct = self.first_channels
        regular = list(dict.fromkeys(start % self.conv.ci for start in self._starts[:-1]))
        index = i if len(regular) >= self.vectors - 1 else T.floormod(i, len(regular))
        last = distinct.index(self._starts[-1] % self.conv.ci)
        usual = (self.vectors - 1) % len(regular) if len(regular) < self.vectors - 1 else self.vectors - 1
        if last == usual:
            return index
        # the minimum changes nothing, but shows an analysis of bounds that the index stays inside
        return T.Select(i == self.vectors - 1, last, T.min(index, len(distinct) - 1))

    def channels(self) -> np.ndarray:
        """The channel of each byte, int [patterns, width]; -1 beyond the line."""
        at = np.arange(self.width)
        first = np.array(self.first_channels)[:, np.newaxis]
        return np.where(at < self.line, (first + at) % self.conv.ci, -1)


def depthwise_dot(
    op: ops.Conv2d,
    x: TensorType,
    constants: Sequence[np.ndarray],
    out: TensorType,
    kernel: DepthwiseDotKernel,
    unit: VectorUnit,
) -> tuple[Step, ...]:
    """The steps of a Conv2d with groups == I == O; `constants` are its weight, bias, multiplier and shift."""
    weight, bias, multiplier, shift = constants
    if fits(op, x, weight.shape, kernel):
        return depthwise_buffer(op, x, constants, out, kernel, unit)
    if weight.shape[1] == 1:
        return depthwise(op, x, constants, out, DepthwiseKernel(unit.lanes), unit)
    packing = Packing(x, wanted_layout(op, x, weight.shape, out, kernel), unit)
    conv = describe(op, packing.read, weight.shape, out)
    plan = _plan(conv, kernel)
    bands = plan_bands(packing, conv, unit.scratchpad) if unit.scratchpad and packing.needed else None
    plan = replace(plan, conv=bands.conv) if bands else plan
    packed = None if bands else pack_input(packing)
    if kernel.unsigned_activation:
        bias = without_offset(bias, weight)
    taps = weight.reshape(weight.shape[0], *conv.kernel)
    arrays = [
        _pack_taps(taps, plan),
        *(_pack(v, plan, extra) for v, extra in ((bias, 0), (multiplier, 2**30), (shift, MAX_SHIFT))),
    ]
    types = [packing.read if packed else x, *(TensorType(a.shape, str(a.dtype)) for a in arrays), out]
    parts = unit.shared(_COST * prod(out.shape) * prod(conv.kernel))
    body = _emit(plan, kernel, bounds_of(op), out, unit, 1 if bands else parts)
    body = emit_bands(bands, conv, body) if bands else body
    func = primfunc(types, {TEMPLATE: kernel.template}, body)
    step = Step(func, (PREVIOUS if packed else 0, *arrays), out, f"{op.kind}_{kernel.template}")
    return (packed, step) if packed else (step,)


def wanted_layout(
    op: ops.Conv2d, x: TensorType, weight: Sequence[int], out: TensorType, kernel: DepthwiseDotKernel
) -> Layout:
    """What the kernel reads: `weight` is the shape of the weights."""
    if fits(op, x, weight, kernel):
        return PLAIN
    if weight[1] == 1:
        return Layout(wanted_padding(op))
    layout = Layout(wanted_padding(op), "uint8" if kernel.unsigned_activation else "int8")
    plan = _plan(describe(op, replace(x, layout=layout), weight, out), kernel)
    return replace(layout, slack=plan.width if plan.line < plan.width else 0)


def _plan(conv: Convolution, kernel: DepthwiseDotKernel) -> Plan:
    width = _ROWS * kernel.lanes
    return Plan(conv, width, _tile(conv, width, kernel.tile_pixels), kernel.block)


def _tile(conv: Convolution, width: int, most: int) -> int:
    """Pixels that share columns: one where a vector is wider than a pixel, or a window too long."""
    if conv.ci < width or conv.kernel[1] > _UNROLLED_COLUMNS:
        return 1
    return even(conv.out[1], most)


def _lane_order(plan: Plan) -> np.ndarray:
    """The byte that lands in each lane when four vectors are interleaved: int [4, width / 4].

    Block b of 16 bytes goes to lanes 4b ... 4b+3 of the four results, four bytes to each; other sizes alike.
    """
    lanes, part = np.arange(plan.width // _ROWS), plan.block // _ROWS
    first = lanes // part * plan.block + lanes % part
    return first + np.arange(_ROWS)[:, np.newaxis] * part


def _pack(values: np.ndarray, plan: Plan, extra: int) -> np.ndarray:
    """[C] -> int32 [patterns, 4, lanes]."""
    channels = plan.channels()[:, _lane_order(plan)]
    return np.where(channels < 0, np.int32(extra), values[channels]).astype(np.int32)


def _pack_taps(taps: np.ndarray, plan: Plan) -> np.ndarray:
    """int8 [C,KH,KW] -> [patterns, KW, groups, outputs, 4, 4 * lanes]: the operands in order of use."""
    kh, kw = plan.conv.kernel
    rows = np.zeros((taps.shape[0] + 1, plan.outputs, plan.groups * _ROWS, kw), np.int8)
    for r in range(plan.outputs):
        rows[:-1, r, r : r + kh] = taps
    channels = plan.channels()[:, _lane_order(plan)]  # -1 is the row of zeros
    grouped = rows.reshape(-1, plan.outputs, plan.groups, _ROWS, kw)[channels]
    return np.ascontiguousarray(grouped.transpose(0, 6, 4, 3, 1, 2, 5)).reshape(
        len(channels), kw, plan.groups, plan.outputs, _ROWS, plan.width
    )


def _emit(
    plan: Plan, kernel: DepthwiseDotKernel, bounds: Bounds, out: TensorType, unit: VectorUnit, parts: int
) -> Callable[..., None]:
    """Code of (x packed, taps, bias, multiplier, shift, y)."""
    conv, lanes = plan.conv, kernel.lanes
    height = conv.out[0]
    pairs = -(-height // plan.outputs)

    def emit(x: Flat, taps: Flat, bias: Flat, multiplier: Flat, shift: Flat, y: Flat) -> None:
        def tile(b: Expr, pair: Expr, i: Expr, column: Expr) -> None:
            row = _start(pair, plan.outputs, height)
            x0 = _start(column, plan.pixels, conv.out[1]) if not plan.by_rows else 0
            start, pattern = plan.start(i), plan.pattern(i)
            constant = pattern * plan.width

            def operands(array: Flat) -> list[Expr]:
                return [T.bind(array.load(constant + q * lanes, lanes)) for q in range(_ROWS)]

            acc = _accumulators(plan, operands(bias), lanes)
            _sum_taps(plan, kernel, acc, x, conv.window(b, row, x0) + start, taps, pattern)
            multipliers, shifts = operands(multiplier), operands(shift)
            for (r, p), line in acc.items():
                values = [T.bind(cell.load(0, lanes)) for cell in line]
                factors = (multipliers, shifts, bounds, unit.requantize, lanes, plan.block, y.dtype)
                result = T.bind(requantize_blocks(values, *factors))
                offset = conv.pixel(b, row + r, x0 + p) + start
                store_part(y, offset, result, plan.width, 0, min(plan.width, plan.line), unit.masked)

        Stored(y, out).fill_border(unit)
        columns = 1 if plan.by_rows else -(-conv.out[1] // plan.pixels)
        lines = (conv.batch, pairs, plan.vectors)

        def part(first: Expr, count: Expr) -> None:
            def line(n: Expr) -> None:
                b, pair, i = unravel(first + n, lines)
                loop(columns, lambda column: tile(b, pair, i, column))

            loop(count, line)

        if parts == 1:
            nest((*lines, columns), tile)
        else:
            share(prod(lines), parts, part)

    return emit


def _start(index: Expr, size: int, extent: int) -> Expr:
    """First element of part `index`; the last part overlaps the one before it."""
    return index * size if extent % size == 0 else T.min(index * size, extent - size)


#: (output row, pixel) -> the four vectors of its sums.
Sums = dict[tuple[int, int], list[Flat]]


def _accumulators(plan: Plan, bias: list[Expr], lanes: int) -> Sums:
    acc = {
        (r, p): [local(lanes, "int32") for _ in bias] for r in range(plan.outputs) for p in range(plan.pixels)
    }
    for line in acc.values():
        for cell, value in zip(line, bias, strict=True):
            cell.store(0, value, lanes)
    return acc


def _sum_taps(
    plan: Plan, kernel: DepthwiseDotKernel, acc: Sums, x: Flat, window: Expr, taps: Flat, pattern: Expr
) -> None:
    """acc[output, pixel][q] += the products of all taps."""
    conv, width, lanes = plan.conv, plan.width, kernel.lanes
    rows = conv.kernel[0] + plan.outputs - 1
    typed = dtype_of("int32", lanes) if kernel.operands_as_int32 else dtype_of("int8", width)
    used = plan.groups * plan.outputs * _ROWS * width

    def column(at: Expr, uses: Sequence[tuple[int, Expr]]) -> None:
        """Column `at` of the window; `uses` are the pixels that it belongs to, each with its tap."""
        for g in range(plan.groups):
            # beyond the last row any will do, the weights are 0: two that differ make cheaper shuffles
            numbers = [n if n < rows else g * _ROWS for n in range(g * _ROWS, (g + 1) * _ROWS)]
            loaded = {n: T.bind(x.load(window + conv.tap(n, 0) + at, width)) for n in dict.fromkeys(numbers)}
            taken = [T.reinterpret(dtype_of("int8", width), loaded[n]) for n in numbers]
            operands = _interleave(taken, plan.block)
            for p, kx in uses:
                for r in range(plan.outputs):
                    first = (pattern * conv.kernel[1] + kx) * used + (g * plan.outputs + r) * _ROWS * width
                    for q, cell in enumerate(acc[r, p]):
                        pair = (operands[q], taps.load(first + q * width, width))
                        product = T.call_llvm_pure_intrin(
                            dtype_of("int32", lanes), kernel.intrinsic, cell.load(0, lanes),
                            *(T.reinterpret(typed, v) for v in pair),
                        )  # fmt: skip
                        cell.store(0, product, lanes)

    if plan.pixels == 1:
        nest((conv.kernel[1],), lambda kx: column(conv.tap(0, kx), [(0, kx)]))
        return
    for at, uses in _shared_columns(conv, plan.pixels).items():
        column(at * conv.ci, uses)


def _shared_columns(conv: Convolution, pixels: int) -> dict[int, list[tuple[int, int]]]:
    """Column of the image -> the (pixel, tap) pairs that read it."""
    columns: dict[int, list[tuple[int, int]]] = {}
    for p in range(pixels):
        for kx in range(conv.kernel[1]):
            columns.setdefault(p * conv.strides[1] + kx * conv.dilation[1], []).append((p, kx))
    return dict(sorted(columns.items()))


def _interleave(rows: Sequence[Expr], block: int) -> list[Expr]:
    """Four vectors a, b, c, d -> four vectors of the groups a[i] b[i] c[i] d[i], ordered by _lane_order."""
    a, b, c, d = rows
    if block == _ROWS:
        even, odd = ((T.bind(every_other(a, b, r, 1)), T.bind(every_other(c, d, r, 1))) for r in (0, 1))
        (zero, two), (one, three) = ([T.bind(every_other(*h, r, 2)) for r in (0, 1)] for h in (even, odd))
        return [zero, one, two, three]
    halves = [
        (T.bind(_unpack(a, b, part, 1, block)), T.bind(_unpack(c, d, part, 1, block))) for part in (0, 1)
    ]
    return [T.bind(_unpack(ab, cd, part, 2, block)) for ab, cd in halves for part in (0, 1)]


def _unpack(a: Expr, b: Expr, part: int, unit: int, block: int) -> Expr:
    """Units of `unit` bytes of a and b in turn, from the lower or upper half of each block."""
    width = int(a.ty.dtype.lanes)
    order = []
    for start in range(0, width, block):
        for first in range(0, block // 2, unit):
            at = start + part * block // 2 + first
            order += [*range(at, at + unit), *range(width + at, width + at + unit)]
    return shuffle([a, b], order)
