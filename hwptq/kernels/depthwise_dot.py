"""Depthwise convolution by a dot-product instruction: its four products are four rows of a window.

Four vectors of neighbouring elements, one of each row, are interleaved byte by byte, so that a lane of the
instruction sees one channel in four rows. With stride 1 the rows serve two rows of outputs, the second one
with its weights moved down by one.

A vector is cut in one of two ways. By rows: it is any neighbouring elements of a row of outputs, whatever the
number of channels; each vector has its own pattern of channels, and these repeat. With stride 1 it reads
neighbouring elements too, else it is put together (row_vectors). By tiles: a vector of channels in a few
neighbouring pixels, which share their interleaved columns.

Where a scratchpad holds packed inputs, only what the first and the last rows read goes there. The others read
the image as it is, with masks for the columns of the border.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.formats import INT8, INT16
from hwptq.operators.conv2d import Conv2d
from hwptq.quant.fixed_point import MAX_SHIFT
from hwptq.targets.templates.depthwise import DepthwiseKernel
from hwptq.targets.templates.depthwise_dot_product import DepthwiseDotKernel
from hwptq.tir.builder import (
    TEMPLATE,
    WHOLE,
    Expr,
    Flat,
    Parts,
    dtype_of,
    every_other,
    local,
    loop,
    nest,
    primfunc,
    share,
    shuffle,
    start_of,
    unravel,
)
from hwptq.tir.kernel import PREVIOUS, Step, TensorType
from hwptq.tir.layout import PLAIN, Layout
from hwptq.tir.requantize import Bounds, requantize_blocks
from hwptq.tir.stored import Stored
from hwptq.tir.vector_unit import VectorUnit

from .choose_tile import row_pixels
from .convolution import Convolution, describe, wanted_padding
from .depthwise import depthwise
from .depthwise_buffer import depthwise_buffer, fits, writes_interleaved
from .depthwise_constants import Entries, pack_factors, pack_taps
from .depthwise_plan import ROWS, Plan
from .halfword_bytes import biases_of_halves, lower_from, split_bytes
from .halfword_sums import begin_lower
from .layer import Layer
from .pack_input import Packing, pack_input
from .pack_weights import without_offset
from .row_vectors import Border, Read, loads_of, reader, rows_inside
from .schedule import Schedule
from .scratchpad import emit_bands, emit_ends, end_bands, plan_bands
from .store_tile import store_part
from .template import Template
from .wishes import Wish

_COST = 8  # a multiply-accumulate here takes as long as so many of a convolution
_UNROLLED_COLUMNS = 8  # of a window, where pixels share them
_MOST_LOADS = 7  # of a vector of an output row; with more, registers are short

#: Code of a kernel: it gets the tensors, the output last.
Emit = Callable[..., None]


class DepthwiseDot(Template[DepthwiseDotKernel]):
    """Convolutions with groups == I == O."""

    table = DepthwiseDotKernel

    def steps(self, layer: Layer) -> tuple[Step, ...]:
        op, x, constants, out = layer.op, layer.activations[0], layer.constants, layer.out
        assert isinstance(op, Conv2d)
        return depthwise_dot(op, x, constants, out, self.kernel, self.unit, self.schedule)

    def wishes(self, layer: Layer) -> list[Wish]:
        op, x, weight = layer.op, layer.activations[0], layer.constants[0].shape
        assert isinstance(op, Conv2d)
        if x.dtype == INT16.held:  # no producer takes it apart
            return [Wish(PLAIN)]
        return [Wish(wanted_layout(op, x, weight, layer.out, self.kernel, self.unit.masked))]

    def takes_halfwords(self, layer: Layer) -> bool:
        return isinstance(layer.op, Conv2d) and layer.op.acc_shift == 0

    def writes(self, layer: Layer, layout: Layout) -> bool:
        op, x, weight = layer.op, layer.activations[0], layer.constants[0].shape
        assert isinstance(op, Conv2d)
        return layout.rows == 1 or writes_interleaved(op, x, weight, layer.out, self.kernel, layout)


def depthwise_dot(
    op: Conv2d,
    x: TensorType,
    constants: Sequence[np.ndarray],
    out: TensorType,
    kernel: DepthwiseDotKernel,
    unit: VectorUnit,
    schedule: Schedule,
) -> tuple[Step, ...]:
    """The steps of a Conv2d with groups == I == O; `constants` are its weight, bias, multiplier and shift."""
    weight = constants[0]
    wide = x.dtype == INT16.held
    if _buffered(op, x, weight.shape, kernel):
        return depthwise_buffer(op, x, constants, out, kernel, unit, schedule.tile)
    if weight.shape[1] == 1:
        return depthwise(op, x, constants, out, DepthwiseKernel(unit.lanes), unit, schedule)
    packing = Packing(x, wanted_layout(op, x, weight.shape, out, kernel, unit.masked), unit)
    conv = describe(op, packing.read, weight.shape, out)
    plan = replace(_plan(conv, kernel, unit.masked, schedule.tile), first_cache=schedule.first_cache)
    if wide:
        plan = replace(plan, lower=lower_from(x, packing.wanted))
    emit_part = partial(_emit, kernel=kernel, bounds=op.bounds, out=out, unit=unit)
    packed = None
    if schedule.scratchpad and packing.needed and not wide:
        plan, body = _from_scratchpad(plan, packing, schedule.scratchpad, emit_part)
    else:
        packed = split_bytes(x, packing.wanted, unit) if wide else pack_input(packing)
        body = emit_part(plan, parts=unit.shared(_COST * prod(out.shape) * prod(conv.kernel)))
    entries = Entries(plan)
    arrays = [pack_taps(weight.reshape(weight.shape[0], *conv.kernel), entries)]
    for factors, surplus in _factors(op, constants, kernel, wide):
        arrays.append(pack_factors(factors, entries, surplus))
    types = [packed.out if packed else x, *(TensorType(a.shape, str(a.dtype)) for a in arrays), out]
    func = primfunc(types, {TEMPLATE: kernel.template}, body)
    step = Step(func, (PREVIOUS if packed else 0, *arrays), out, f"{op.kind}_{kernel.template}")
    return (packed, step) if packed else (step,)


def _buffered(op: Conv2d, x: TensorType, weight: Sequence[int], kernel: DepthwiseDotKernel) -> bool:
    """Whether depthwise_buffer computes it."""
    return x.dtype == INT8.held and fits(op, x, weight, kernel)


def _factors(
    op: Conv2d, constants: Sequence[np.ndarray], kernel: DepthwiseDotKernel, wide: bool
) -> list[tuple[np.ndarray, int]]:
    """The factors of channels that the kernel reads, each with a value for surplus lanes."""
    weight, bias, multiplier, shift = constants
    others = [(multiplier, 2**30), (shift, MAX_SHIFT)]
    if wide:
        lower, upper = biases_of_halves(op, bias, weight, kernel.unsigned_activation)
        return [(lower, 0), *others, (upper, 0)]
    return [(without_offset(bias, weight) if kernel.unsigned_activation else bias, 0), *others]


def _from_scratchpad(
    plan: Plan, packing: Packing, scratchpad: int, emit_part: Callable[..., Emit]
) -> tuple[Plan, Emit]:  # fmt: skip
    """The plan that the constants belong to, and code of (x, taps, bias, multiplier, shift, y).

    Only what the first and the last output rows read is packed where the others can read x as it is.
    """
    conv, padding, unit = plan.conv, packing.padding, packing.unit
    bands = plan_bands(packing, conv, scratchpad)
    unpacked = plan.by_rows and unit.masked and packing.x.layout == PLAIN and packing.dtype == "int8"
    inside = rows_inside(conv, packing) if unpacked and conv.kernel[1] <= _UNROLLED_COLUMNS else range(0)
    ends = end_bands(packing, conv, inside, plan.outputs)
    if len(inside) < plan.outputs or ends.elements > scratchpad:
        plan = replace(plan, conv=bands.conv)
        return plan, emit_bands(bands, conv, emit_part(plan))
    _, h, w, c = packing.x.shape
    middle = replace(plan, conv=replace(conv, batch=1, image=(h, w), out=(len(inside), conv.out[1])))
    compute = emit_part(middle, border=Border(padding.left, w, padding.value))
    at_ends = emit_ends(ends, conv, inside, emit_part(replace(plan, conv=ends.conv)))

    def emit(x: Flat, *rest: Flat) -> None:
        *operands, y = rest
        first = ((inside.start * conv.strides[0] - padding.top) * w - padding.left) * c

        def image(b: Expr) -> None:
            rows = y.behind(conv.pixel(b, inside.start, 0))
            compute(x.behind(b * h * w * c + first), *operands, rows)

        at_ends(x, *rest)
        nest((conv.batch,), image)

    return plan, emit


def wanted_layout(
    op: Conv2d, x: TensorType, weight: Sequence[int], out: TensorType, kernel: DepthwiseDotKernel,
    masked: bool,
) -> Layout:  # fmt: skip
    """What the kernel reads: `weight` is the shape of the weights; `masked`: see VectorUnit."""
    if _buffered(op, x, weight, kernel):
        return PLAIN
    if weight[1] == 1:
        return Layout(wanted_padding(op))
    layout = Layout(wanted_padding(op), "uint8" if kernel.unsigned_activation else "int8")
    plan = _plan(describe(op, replace(x, layout=layout), weight, out), kernel, masked)
    return replace(layout, slack=plan.width if plan.line < plan.width else 0)


def _plan(conv: Convolution, kernel: DepthwiseDotKernel, masked: bool, choice: int = 0) -> Plan:
    """By rows where a vector can be read so with few loads, of which more than one need masks.

    Not so, with one load, where vectors make up the channels of a pixel: along a row of pixels each of them
    then keeps its constants in registers. With a `choice` above 0 another plan, which may be faster and reads
    the same layout.
    """
    width = ROWS * kernel.lanes
    rows = Plan(conv, width, 1, kernel.block, by_rows=True)
    few = loads_of(rows) <= (_MOST_LOADS if masked else 1)
    if conv.ci < width or conv.kernel[1] > _UNROLLED_COLUMNS:  # pixels share no columns
        return rows if few else Plan(conv, width, 1, kernel.block)
    found = [Plan(conv, width, p, kernel.block) for p in row_pixels(conv.out[1], kernel.tile_pixels)]
    if few:
        first = found[0].pixels == 1 and (masked or conv.ci % width > 0)
        found.insert(0 if first else len(found), rows)
    return found[min(choice, len(found) - 1)]


def _emit(
    plan: Plan, kernel: DepthwiseDotKernel, bounds: Bounds, out: TensorType, unit: VectorUnit,
    parts: Parts = WHOLE, border: Border | None = None,
) -> Emit:  # fmt: skip
    """Code of (x packed, taps, bias, multiplier, shift, y); `border` is that which x does not have.

    Of int16 there are biases of the sums over upper bytes before y, and `bias` is of those over lower ones.
    """
    conv, lanes, entries = plan.conv, kernel.lanes, Entries(plan)
    height = conv.out[0]
    pairs = -(-height // plan.outputs)

    def emit(x: Flat, taps: Flat, bias: Flat, multiplier: Flat, shift: Flat, *rest: Flat) -> None:
        *uppers, y = rest

        def tile(b: Expr, pair: Expr, i: Expr, column: Expr, bordered: bool = False) -> None:
            row = start_of(pair, plan.outputs, height)
            x0 = start_of(column, plan.pixels, conv.out[1]) if not plan.by_rows else 0
            start, entry = plan.start(i), entries.entry(i)

            def operands(array: Flat) -> list[Expr]:
                size = entries.bytes // ROWS
                offsets = [entries.offset(entry, q, ROWS, size) for q in range(ROWS)]
                return [T.bind(array.load(offset, lanes)) for offset in offsets]

            acc = _accumulators(plan, operands(uppers[0] if uppers else bias), lanes)
            read = reader(plan, start, border if bordered else None)
            _sum_taps(plan, kernel, acc, x, read, conv.window(b, row, x0), taps, entry, bordered)
            if uppers:
                lower, first = x.behind(plan.lower), operands(bias)
                for line in acc.values():
                    begin_lower(line, first, lanes, 0)
                _sum_taps(plan, kernel, acc, lower, read, conv.window(b, row, x0), taps, entry, bordered)
            multipliers, shifts = operands(multiplier), operands(shift)
            for (r, p), line in acc.items():
                values = [T.bind(cell.load(0, lanes)) for cell in line]
                factors = (multipliers, shifts, bounds, unit.requantize, lanes, plan.block, y.dtype)
                result = T.bind(requantize_blocks(values, *factors))
                offset = conv.pixel(b, row + r, x0 + p) + start
                store_part(y, offset, result, plan.width, 0, min(plan.width, plan.line), unit.masked)

        def some_tile(b: Expr, pair: Expr, i: Expr, column: Expr) -> None:
            first, end = border.whole_vectors(plan) if border else (0, plan.vectors)
            if end - first in (0, plan.vectors):
                tile(b, pair, i, column, bordered=end == first)
                return
            with T.If(T.And(i >= first, i < end)):
                with T.Then():
                    tile(b, pair, i, column)
                with T.Else():
                    tile(b, pair, i, column, bordered=True)

        columns = 1 if plan.by_rows else -(-conv.out[1] // plan.pixels)
        lines = (conv.batch, pairs, plan.vectors)

        def part(first: Expr, count: Expr) -> None:
            def line(n: Expr) -> None:
                b, pair, i = unravel(first + n, lines)
                loop(columns, lambda column: some_tile(b, pair, i, column))

            if parts == WHOLE:
                nest((*lines, columns), some_tile)
            else:
                loop(count, line)

        share(prod(lines), parts, part, Stored(y, out).border(unit))

    return emit


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
    plan: Plan, kernel: DepthwiseDotKernel, acc: Sums, x: Flat, read: Read, window: Expr, taps: Flat,
    entry: Expr, unrolled: bool,
) -> None:  # fmt: skip
    """acc[output, pixel][q] += the products of all taps."""
    conv, width, lanes, entries = plan.conv, plan.width, kernel.lanes, Entries(plan)
    rows = conv.kernel[0] + plan.outputs - 1
    typed = dtype_of("int32", lanes) if kernel.operands_as_int32 else dtype_of("int8", width)
    used = plan.groups * plan.outputs * ROWS

    def column(at: Expr, uses: Sequence[tuple[int, Expr]]) -> None:
        """Column `at` of the window; `uses` are the pixels that it belongs to, each with its tap."""
        for g in range(plan.groups):
            # beyond the last row any will do, the weights are 0: two that differ make cheaper shuffles
            numbers = [n if n < rows else g * ROWS for n in range(g * ROWS, (g + 1) * ROWS)]
            tap = uses[0][1]
            loaded = {n: read(x, window + conv.tap(n, 0) + at, tap) for n in dict.fromkeys(numbers)}
            taken = [T.reinterpret(dtype_of("int8", width), loaded[n]) for n in numbers]
            operands = _interleave(taken, plan.block)
            for p, kx in uses:
                for r in range(plan.outputs):
                    first = kx * used + (g * plan.outputs + r) * ROWS
                    for q, cell in enumerate(acc[r, p]):
                        offset = entries.offset(entry, first + q, conv.kernel[1] * used, entries.bytes)
                        pair = (operands[q], taps.load(offset, width))
                        product = T.call_llvm_pure_intrin(
                            dtype_of("int32", lanes), kernel.intrinsic, cell.load(0, lanes),
                            *(T.reinterpret(typed, v) for v in pair),
                        )  # fmt: skip
                        cell.store(0, product, lanes)

    if plan.pixels == 1:
        for kx in range(conv.kernel[1]) if unrolled else ():
            column(conv.tap(0, kx), [(0, kx)])
        if not unrolled:
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
    """Four vectors a, b, c, d -> four vectors of the groups a[i] b[i] c[i] d[i], as constants are packed."""
    a, b, c, d = rows
    if block == ROWS:
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
