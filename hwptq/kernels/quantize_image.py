"""Quantize of an image of three planes, float [N,3,H,W], that becomes int8 [N,H,W,3] in one pass.

The planes are joined in the bytes of 32-bit lanes, one a pixel, whose fourth bytes are then left out. A
device without vectors stores one value after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from tvm.script.ir_builder import tirx as T

from hwptq.operators.quantize import Quantize, quantized
from hwptq.tir.builder import (
    TEMPLATE,
    Expr,
    Flat,
    cast,
    constant,
    dtype_of,
    loop,
    primfunc,
    share,
    shuffle,
    spans,
    unravel,
)
from hwptq.tir.encoding import encoded
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.stored import Stored
from hwptq.tir.vector_unit import VectorUnit

from .store_tile import store_part

_PLANES = 3
_BYTES = 4  # of a lane
_BLOCK = 16  # bytes within which a device moves bytes at once
_COST = 30  # multiply-accumulates that take as long as an element


def quantizes_images(x: Sequence[int], unit: VectorUnit) -> bool:
    """Whether quantize_image takes an image of shape x [N,3,H,W]; not where it would keep its shape."""
    three = len(x) == 4 and x[1] == _PLANES and len(set(x[1:])) > 1
    return three and (unit.float_lanes == 1 or unit.float_lanes >= _BYTES) and not unit.masked


def quantize_image(op: Quantize, x: TensorType, out: TensorType, unit: VectorUnit) -> Step:
    """The step of `op` from x float32 [N,3,H,W] to int8 [N,H,W,3] in the layout of `out`."""
    func = primfunc([x, out], {TEMPLATE: "quantize_image"}, _emit(op, x.shape, out, unit))
    return Step(func, (0,), out, "quantize_image")


def _emit(op: Quantize, shape: Sequence[int], out: TensorType, unit: VectorUnit) -> Callable[..., None]:
    n, _, h, w = shape

    def emit(x: Flat, y: Flat) -> None:
        image = Stored(y, out)

        def row(number: Expr) -> None:
            b, i = unravel(number, (n, h))

            def block(at: Expr, lanes: int, _: int) -> None:
                start = (b * _PLANES * h + i) * w + at
                planes = [
                    quantized(op, x.load(start + c * h * w, lanes), lanes, unit) for c in range(_PLANES)
                ]
                if unit.float_lanes == 1:
                    for c, value in enumerate(planes):
                        image.store(image.pixel(b, i, at) + c, cast(value, "int8"))
                    return
                pixels = encoded(_joined(planes, lanes), y.dtype, _BYTES * lanes)
                width = _BYTES * lanes
                store_part(y, image.pixel(b, i, at), T.bind(pixels), width, 0, _PLANES * lanes)

            spans(w, unit.float_width(w), block)

        def part(first: Expr, count: Expr) -> None:
            loop(count, lambda r: row(first + r))

        share(n * h, unit.shared(_COST * prod(shape)), part, image.border(unit))

    return emit


def _joined(planes: Sequence[Expr], lanes: int) -> Expr:
    """Three int32 planes of int8 values -> int8 [lanes][3], one pixel after the other, then anything."""
    first, second, third = (T.bitwise_and(plane, constant(255, "int32", lanes)) for plane in planes)
    word = T.bitwise_or(first, T.shift_left(second, constant(8, "int32", lanes)))
    word = T.bitwise_or(word, T.shift_left(third, constant(16, "int32", lanes)))
    width = _BYTES * lanes
    return _without_fourth(T.bind(T.reinterpret(dtype_of("int8", width), word)), width)


def _without_fourth(packed: Expr, width: int) -> Expr:
    """Bytes 0, 1, 2 of each lane: first within blocks, then whole lanes, as devices move them."""
    order = []
    for start in range(0, width, _BLOCK):
        end = min(start + _BLOCK, width)
        kept = [i for i in range(start, end) if i % _BYTES != _BYTES - 1]
        order += kept + [i for i in range(start, end) if i not in kept]
    lanes = width // _BYTES
    if width <= _BLOCK:
        return shuffle([packed], order)
    words = T.bind(T.reinterpret(dtype_of("int32", lanes), T.bind(shuffle([packed], order))))
    kept = [i for i in range(lanes) if i % (_BLOCK // _BYTES) != _BLOCK // _BYTES - 1]
    surplus = [i for i in range(lanes) if i not in kept]
    return T.reinterpret(dtype_of("int8", width), shuffle([words], kept + surplus))
