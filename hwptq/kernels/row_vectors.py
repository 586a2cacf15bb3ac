"""A vector of neighbouring elements of an output row: what it reads of the image under one tap of the window.

With a horizontal stride of s, element e of an output row of C channels reads element e + (s - 1) C (e // C)
of a row of the image. So one load serves all lanes of a pixel, and a vector takes as many loads as it has
pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import Expr, Flat, cast, constant, splat

from .convolution import Convolution
from .depthwise_plan import Plan
from .pack_input import Packing

#: (x, offset of the element under the tap for element 0 of the row, column of the tap) -> a vector.
Read = Callable[[Flat, Expr, int], Expr]


@dataclass(frozen=True)
class Border:
    """The columns beside an image of `columns` columns that lies in memory without them."""

    left: int
    columns: int
    value: int

    def inside(self, conv: Convolution, kx: int) -> tuple[int, int]:
        """The elements (from, to) of an output row that find a column of the image under tap column kx."""
        stride, column = conv.strides[1], kx * conv.dilation[1] - self.left
        pixels = -(column // stride), -(-(self.columns - column) // stride)
        first, end = (max(0, min(p, conv.out[1])) * conv.ci for p in pixels)
        return first, end

    def whole_vectors(self, plan: Plan) -> tuple[int, int]:
        """The vectors (from, to) of an output row that see nothing of the border."""
        limits = [self.inside(plan.conv, kx) for kx in range(plan.conv.kernel[1])]
        first, end = max(lo for lo, _ in limits), min(hi for _, hi in limits)
        size = min(plan.width, plan.line)
        whole = [i for i, start in enumerate(plan.starts) if first <= start and start + size <= end]
        return (whole[0], whole[-1] + 1) if whole else (0, 0)


def loads_of(plan: Plan) -> int:
    """Pixels of which a vector of an output row has elements, the most; one load will do with stride 1."""
    if plan.conv.strides[1] == 1:
        return 1
    size, ci = min(plan.width, plan.line), plan.conv.ci
    return 1 + max((start + size - 1) // ci - start // ci for start in plan.starts)


def reader(plan: Plan, start: Expr, border: Border | None) -> Read:
    """Reads the vector that begins with element `start` of an output row, `border.value` in the border."""
    conv, width = plan.conv, plan.width
    start = tirx.const(start, "int32") if isinstance(start, int) else start
    pixel, between = T.floordiv(start, conv.ci), (conv.strides[1] - 1) * conv.ci
    pixels = range(loads_of(plan))
    shifts = [T.min(pixel + k, conv.out[1] - 1) * between if between else 0 for k in pixels]
    later = [_from_lane((pixel + k) * conv.ci - start, width) for k in pixels[1:]]

    def read(x: Flat, at: Expr, kx: int) -> Expr:
        value, *others = [T.bind(x.load(at + start + shift, width)) for shift in shifts]
        for mask, other in zip(later, others, strict=True):
            value = T.bind(_choose(mask, other, value))
        if border is None:
            return value
        outside = constant(border.value, x.dtype, width)
        first, end = border.inside(conv, kx)
        if first > 0:
            value = _choose(_from_lane(first - start, width), value, outside)
        if end < plan.line:
            value = _choose(_from_lane(end - start, width), outside, value)
        return T.bind(value)

    return read


def _from_lane(lane: Expr, width: int) -> Expr:
    """All bits of the lanes from `lane` on and none of the others, as int8."""
    numbers = cast(T.ramp(tirx.const(0, "int32"), 1, width), "uint8", width)
    # the mask changes nothing, but stops an analysis that would cast the bounds of `lane`
    first = T.bitwise_and(T.max(0, T.min(lane, width)), 255)
    reached = numbers >= splat(T.cast(first, "uint8"), width)
    return T.bind(T.Select(reached, constant(-1, "int8", width), constant(0, "int8", width)))


def _choose(mask: Expr, value: Expr, other: Expr) -> Expr:
    """`value` where the bits of the mask are set: without predicates, of which a device has few."""
    return T.bitwise_xor(other, T.bitwise_and(T.bitwise_xor(other, value), mask))


def rows_inside(conv: Convolution, packing: Packing) -> range:
    """The output rows whose windows can be read from x, which has no border: their rows are rows of x.

    Where a window reaches beyond the ends of a row, it reads other rows of x.
    """
    padding, (_, height, width, _) = packing.padding, packing.x.shape
    (stride, _), reach = conv.strides, (conv.kernel[0] - 1) * conv.dilation[0]
    if conv.image != packing.image or max(padding.left, padding.right) > width:
        return range(0)
    least = padding.top + (padding.left > 0)
    most = padding.top + height - 1 - (padding.right > 0) - reach
    return range(-(-least // stride), min(conv.out[0], most // stride + 1))
