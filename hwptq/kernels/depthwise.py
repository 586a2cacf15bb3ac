"""Depthwise convolution by plain vector code, one vector of channels, or by pairs of taps, one channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.formats import INT8
from hwptq.operators.conv2d import Conv2d
from hwptq.targets.templates.depthwise import DepthwiseKernel
from hwptq.tir.builder import (
    TEMPLATE,
    Expr,
    Flat,
    Parts,
    cast,
    local,
    loop,
    nest,
    primfunc,
    share,
    spans,
    start_of,
    unravel,
)
from hwptq.tir.kernel import PREVIOUS, Step, TensorType
from hwptq.tir.layout import Layout
from hwptq.tir.requantize import Bounds, finish
from hwptq.tir.stored import Stored
from hwptq.tir.vector_unit import VectorUnit

from .choose_tile import row_pixels
from .convolution import Convolution, describe, wanted_padding
from .depthwise_pairs import pack_pairs, sum_pairs
from .layer import Layer
from .pack_input import Packing, pack_input
from .schedule import Schedule
from .scratchpad import emit_bands, plan_bands
from .template import Template
from .wishes import Wish

COST = 8  # a multiply-accumulate here takes as long as so many of a convolution
_UNROLLED_TAPS = 8  # taps of a window row that are written out, so that neighbouring pixels share loads


class Depthwise(Template[DepthwiseKernel]):
    """Convolutions with groups == I == O."""

    table = DepthwiseKernel

    def steps(self, layer: Layer) -> tuple[Step, ...]:
        op, x, constants, out = layer.op, layer.activations[0], layer.constants, layer.out
        assert isinstance(op, Conv2d)
        return depthwise(op, x, constants, out, self.kernel, self.unit, self.schedule)

    def wishes(self, layer: Layer) -> list[Wish]:
        assert isinstance(layer.op, Conv2d)
        return [Wish(wanted_layout(layer.op, layer.activations[0]))]

    def writes(self, layer: Layer, layout: Layout) -> bool:
        return layout.rows == 1

    def takes_halfwords(self, layer: Layer) -> bool:
        return isinstance(layer.op, Conv2d) and layer.op.acc_shift == 0 and not self.kernel.pairs


def wanted_layout(op: Conv2d, x: TensorType) -> Layout:
    """What the kernel reads: x with its border."""
    return Layout(wanted_padding(op), x.dtype)


def depthwise(
    op: Conv2d,
    x: TensorType,
    constants: Sequence[np.ndarray],
    out: TensorType,
    kernel: DepthwiseKernel,
    unit: VectorUnit,
    schedule: Schedule,
) -> tuple[Step, ...]:
    """The steps of a Conv2d with groups == I == O; `constants` are its weight, bias, multiplier and shift."""
    weight, *rest = constants
    packing = Packing(x, wanted_layout(op, x), unit)
    conv = describe(op, packing.read, weight.shape, out)
    banded = schedule.scratchpad and packing.needed and x.dtype == INT8.held
    bands = plan_bands(packing, conv, schedule.scratchpad) if banded else None
    packed = None if bands else pack_input(packing)
    taps = np.ascontiguousarray(weight[..., 0].transpose(1, 2, 0), dtype=np.int16)
    taps = pack_pairs(taps) if kernel.pairs else taps
    types = [
        packing.read if not bands else x,
        TensorType(taps.shape, str(taps.dtype)),
        *[TensorType((conv.co,), "int32")] * 3,
        out,
    ]
    parts = unit.shared(COST * prod(out.shape) * prod(conv.kernel))
    body = _emit(bands.conv if bands else conv, kernel, op.bounds, out, unit, schedule.tile, parts)
    body = emit_bands(bands, conv, body) if bands else body
    func = primfunc(types, {TEMPLATE: kernel.template}, body)
    step = Step(func, (PREVIOUS if packed else 0, taps, *rest), out, f"{op.kind}_{kernel.template}")
    return (packed, step) if packed else (step,)


def _emit(
    conv: Convolution,
    kernel: DepthwiseKernel,
    bounds: Bounds,
    out: TensorType,
    unit: VectorUnit,
    choice: int,
    parts: Parts,
) -> Callable[..., None]:
    """Code of (x packed, weights int16 [KH,KW,C] or by pairs, bias, multiplier, shift, y).

    Without pairs both factors are widened from int16 right at the product: compilers know that as one
    instruction (smlal on Arm, pmaddwd on x86).
    """
    columns = conv.out[1]
    choices = row_pixels(columns, kernel.tile_pixels)
    pixels = choices[min(choice, len(choices) - 1)]

    def emit(x: Flat, weight: Flat, bias: Flat, multiplier: Flat, shift: Flat, y: Flat) -> None:
        def tile(b: Expr, row: Expr, t: Expr) -> None:
            x0 = start_of(t, pixels, columns)

            def channels(at: Expr, width: int, count: int) -> None:
                acc = [local(width, "int32") for _ in range(pixels)]
                start = T.bind(bias.load(at, width))
                for cell in acc:
                    cell.store(0, start, width)
                windows = [conv.window(b, row, x0 + i) for i in range(pixels)]
                if kernel.pairs:
                    sum_pairs(conv, acc, x, windows, weight, at, kernel.pairs)
                else:
                    _sum_taps(conv, acc, x, windows, weight, at, width)
                scales = multiplier.load(at, width), shift.load(at, width)
                for i, cell in enumerate(acc):
                    value = T.bind(cell.load(0, width))
                    result = finish(value, scales, bounds, width, unit.requantize, y.dtype)
                    y.store(conv.pixel(b, row, x0 + i) + at, result, width)

            spans(conv.co, kernel.lanes, channels)

        def rows(first: Expr, count: Expr) -> None:
            def row(number: Expr) -> None:
                b, y_row = unravel(first + number, (conv.batch, conv.out[0]))
                loop(-(-columns // pixels), lambda t: tile(b, y_row, t))

            loop(count, row)

        share(conv.batch * conv.out[0], parts, rows, Stored(y, out).border(unit))

    return emit


def _sum_taps(
    conv: Convolution, acc: list[Flat], x: Flat, windows: list[Expr], weight: Flat, at: Expr, width: int
) -> None:
    """acc[pixel] += the products of all taps, for `width` channels from `at`."""
    kh, kw = conv.kernel

    def tap(ky: Expr, kx: Expr) -> None:
        factor = T.bind(weight.load((ky * kw + kx) * conv.ci + at, width))
        for cell, window in zip(acc, windows, strict=True):
            element = cast(x.load(window + at + conv.tap(ky, kx), width), "int16", width)
            product = cast(element, "int32", width) * cast(factor, "int32", width)
            cell.store(0, cell.load(0, width) + product, width)

    if kw > _UNROLLED_TAPS:
        nest((kh, kw), tap)
        return

    def taps_of_row(ky: Expr) -> None:
        for kx in range(kw):
            tap(ky, kx)

    nest((kh,), taps_of_row)
