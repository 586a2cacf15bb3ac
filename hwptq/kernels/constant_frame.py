"""A 1x1 convolution with padding: its image without padding, and around it pixels that are all the same.

An output pixel whose only input pixel lies in the padding depends on no activation. So the convolution runs
on the image as it is, in the fastest form that the target has, and a step of its own puts the frame around.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.ir.operator import Operator
from hwptq.operators.conv2d import Conv2d
from hwptq.tir.builder import TEMPLATE, Expr, Flat, loop, primfunc, share, unravel
from hwptq.tir.kernel import PREVIOUS, Step, TensorType
from hwptq.tir.layout import Layout, Padding
from hwptq.tir.stored import Stored
from hwptq.tir.vector_unit import VectorUnit

from .layer import Layer
from .template import Maker
from .wishes import Wish

_COST = 8  # multiply-accumulates that take as long as moving a byte


class Framed(Maker):
    """What makes a convolution on the image alone, and the frame around it."""

    def __init__(self, maker: Maker, unit: VectorUnit):
        self.maker, self.unit = maker, unit

    def steps(self, layer: Layer) -> tuple[Step, ...]:
        assert isinstance(layer.op, Conv2d)
        depth = layer.activations[0].shape[-1]
        frame = frame_step(layer.op, depth, layer.constants, layer.out, self.unit)
        return (*self.maker.steps(_alone(layer)), frame)

    def wishes(self, layer: Layer) -> list[Wish]:
        return self.maker.wishes(_alone(layer))

    def writes(self, layer: Layer, layout: Layout) -> bool:
        return layout.rows == 1


def framed(layer: Layer) -> bool:
    """Whether a layer is a convolution with such a frame."""
    return without_frame(layer.op, layer.constants) is not None


def _alone(layer: Layer) -> Layer:
    op, alone = layer.op, without_frame(layer.op, layer.constants)
    assert isinstance(op, Conv2d)
    assert alone is not None
    return replace(layer, op=alone, out=inside(op, layer.out))


def without_frame(op: Operator, constants: Sequence[np.ndarray]) -> Conv2d | None:
    """The convolution on the image alone; None where `op` is no 1x1 convolution of stride 1 with padding."""
    if not isinstance(op, Conv2d) or not constants or not any(op.padding):
        return None
    if constants[0].shape[1:3] != (1, 1) or op.strides != (1, 1):
        return None
    return replace(op, padding=(0, 0, 0, 0))


def inside(op: Conv2d, out: TensorType) -> TensorType:
    """The plain tensor within the frame of `out`."""
    n, height, width, c = out.shape
    top, left, bottom, right = op.padding
    return TensorType((n, height - top - bottom, width - left - right, c), out.dtype)


def frame_step(
    op: Conv2d, depth: int, constants: Sequence[np.ndarray], out: TensorType, unit: VectorUnit
) -> Step:
    """The step that puts the frame of `op` around the result of the step before it.

    `depth`: input channels; `constants` are weight, bias, multiplier and shift.
    """
    padding = np.full((1, 1, 1, depth), op.in_zero_point, np.int8)
    alone = replace(op, padding=(0, 0, 0, 0))
    frame = np.ascontiguousarray(alone.reference(padding, *constants).reshape(-1))
    image = inside(op, out)
    types = [image, TensorType(frame.shape, out.dtype), out]
    func = primfunc(types, {TEMPLATE: "constant_frame"}, _emit(Padding(*op.padding), image, out, unit))
    return Step(func, (PREVIOUS, frame), out, "constant_frame")


def _emit(frame: Padding, image: TensorType, out: TensorType, unit: VectorUnit) -> Callable[..., None]:
    """Code of (image, pixel of the frame, y)."""
    n, height, width, c = out.shape
    _, h, w, _ = image.shape

    def emit(x: Flat, pixel: Flat, y: Flat) -> None:
        framed = Stored(y, out)

        def fill(at: Expr, count: int) -> None:
            def one(i: Expr) -> None:
                unit.cover(c, lambda j, m, k: framed.store(at + i * c + j, pixel.load(j, m), m, k))

            if count:
                loop(count, one)

        def row(number: Expr) -> None:
            b, r = unravel(number, (n, height))
            at = framed.pixel(b, r, 0)
            # the limits change nothing, but show that the row is inside
            source = (b * h + T.max(0, T.min(r - frame.top, h - 1))) * w * c
            with T.If(T.And(r >= frame.top, r < frame.top + h)):
                with T.Then():
                    fill(at, frame.left)
                    first = at + frame.left * c
                    unit.cover(w * c, lambda i, m, k: framed.store(first + i, x.load(source + i, m), m, k))
                    fill(first + w * c, frame.right)
                with T.Else():
                    fill(at, width)

        def rows(first: Expr, count: Expr) -> None:
            loop(count, lambda i: row(first + i))

        share(n * height, unit.shared(_COST * prod(out.shape)), rows, framed.border(unit))

    return emit
