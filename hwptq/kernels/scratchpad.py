"""Kernels that keep their packed input in the device's scratchpad: all of it, or one band of rows at a time.

A band is as many output rows as have their input rows, with the border, in the scratchpad at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import Expr, Flat, loop, nest, workspace
from hwptq.tir.stored import Stored

from .convolution import Convolution
from .pack_input import Packing
from .vector_blocks import even


@dataclass(frozen=True)
class Bands:
    """How a convolution is cut: `conv` is that of one band, of which there are `count` for each image.

    `whole`: there is one band, and it is the whole packed input.
    """

    packing: Packing
    conv: Convolution
    count: int
    whole: bool

    @property
    def elements(self) -> int:
        """Of the packed input of a band."""
        if self.whole:
            return self.packing.elements
        return self.conv.image[0] * self.conv.image[1] * self.conv.ci + self.packing.slack


def plan_bands(packing: Packing, conv: Convolution, scratchpad: int) -> Bands:
    """The largest bands of `conv` that fit into `scratchpad` bytes, all of one size.

    Raises ValueError where one output row needs more.
    """
    size = np.dtype(packing.dtype).itemsize
    if packing.elements * size <= scratchpad:
        return Bands(packing, conv, 1, whole=True)

    band = partial(_band, packing, conv)
    # a convolution over flattened pixels has no rows of its own
    least = packing.elements if conv.image != packing.image else band(1).elements
    if least * size > scratchpad:
        raise ValueError(f"needs {least * size} bytes of scratchpad, the device has {scratchpad}")
    most = max(rows for rows in range(1, conv.out[0] + 1) if band(rows).elements * size <= scratchpad)
    return band(even(conv.out[0], most))


def _band(packing: Packing, conv: Convolution, rows: int) -> Bands:
    """Bands of so many output rows."""
    height = (rows - 1) * conv.strides[0] + conv.dilation[0] * (conv.kernel[0] - 1) + 1
    cut = replace(conv, batch=1, image=(height, conv.image[1]), out=(rows, conv.out[1]))
    return Bands(packing, cut, -(-conv.out[0] // rows), whole=False)


def emit_bands(bands: Bands, conv: Convolution, compute: Callable[..., None]) -> Callable[..., None]:
    """Code of (x, operands…, y): `compute` is that of one band, with its packed input instead of x."""
    packing, cut = bands.packing, bands.conv

    def emit(x: Flat, *rest: Flat) -> None:
        *operands, y = rest
        scratch = workspace(bands.elements, packing.dtype)
        source = Stored(x, packing.x)
        if bands.whole:
            packing.emit(x, scratch)
            compute(scratch, *operands, y)
            return

        def one(b: Expr, t: Expr) -> None:
            rows, height = cut.out[0], conv.out[0]
            first = t * rows if height % rows == 0 else T.min(t * rows, height - rows)
            _pack_band(bands, source, Stored(scratch, packing.out), b, first)
            compute(scratch, *operands, y.behind((b * height + first) * conv.out[1] * conv.co))

        nest((conv.batch, bands.count), one)

    return emit


def end_bands(packing: Packing, conv: Convolution, inside: range, least: int) -> Bands:
    """The first and the last output rows of `conv`: as many as lie outside of `inside`, at least `least`."""
    rows = max(inside.start, conv.out[0] - inside.stop, least)
    return _band(packing, conv, rows)


def emit_ends(
    ends: Bands, conv: Convolution, inside: range, compute: Callable[..., None]
) -> Callable[..., None]:
    """Code of (x, operands…, y) that computes the first and the last rows, where `inside` lacks them."""
    rows, height, packing = ends.conv.out[0], conv.out[0], ends.packing
    starts = [0] * (inside.start > 0) + [height - rows] * (inside.stop < height)

    def emit(x: Flat, *rest: Flat) -> None:
        if not starts:
            return
        *operands, y = rest
        scratch = workspace(ends.elements, packing.dtype)

        def one(b: Expr, t: Expr) -> None:
            first = starts[0] if len(starts) == 1 else t * starts[1]
            _pack_band(ends, Stored(x, packing.x), Stored(scratch, packing.out), b, first)
            compute(scratch, *operands, y.behind(conv.pixel(b, first, 0)))

        nest((conv.batch, len(starts)), one)

    return emit


def _pack_band(bands: Bands, x: Stored, scratch: Stored, b: Expr, first: Expr) -> None:
    """Copy the input rows of the output rows from `first`, with the border, into `scratch`."""
    packing, conv = bands.packing, bands.conv
    padding, (_, h, w, c) = packing.padding, packing.x.shape
    line, unit = conv.image[1] * c, packing.unit

    def row(r: Expr) -> None:
        source = first * conv.strides[0] + r - padding.top
        start = x.pixel(b, T.max(0, T.min(source, h - 1)), 0)  # the limits show that it is inside
        at = r * line
        with T.If(T.And(source >= 0, source < h)):
            with T.Then():
                scratch.fill(at, padding.left * c, padding.value, unit)
                packing.copy(x, start, scratch, at + padding.left * c, w * c)
                scratch.fill(at + (padding.left + w) * c, padding.right * c, padding.value, unit)
            with T.Else():
                scratch.fill(at, line, padding.value, unit)

    loop(conv.image[0], row)
