"""Means over windows of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor, log2, prod
from typing import Any, ClassVar

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.ir.dataflow import op_name, shape_of
from hwptq.ir.operator import Operator
from hwptq.lowering.averaging import average_window, pixels_of, why_not_pixels
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.layer import multipliers_of
from hwptq.lowering.output import Output
from hwptq.lowering.rules import lowers
from hwptq.quant.fixed_point import ACCUMULATOR_LIMIT, STEPS, requantize
from hwptq.quant.float_values import value
from hwptq.quant.window import pooled
from hwptq.tir import requantize as tir
from hwptq.tir.builder import Expr, Flat, cast, constant, splat
from hwptq.tir.kernel import TensorType
from hwptq.tir.vector_unit import VectorUnit
from hwptq.tir.windows import emit_pool

from .float_operator import FloatOperator, stored


@dataclass(frozen=True)
class AvgPool(Operator):
    """(x [N,H,W,C], multiplier int32 [OH*OW], shift int32 [OH*OW]) -> [N,OH,OW,C].

    acc = (sum over the window of (x - in_zero_point)) * factor, padding adds nothing. The multiplier is per
    output pixel, since windows at the border may hold fewer values (count_include_pad = false, ceil mode).
    out: the dtype of the result.
    """

    kind: ClassVar[str] = "avg_pool"
    pool_size: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    out_shape: tuple[int, int]
    factor: int
    in_zero_point: int
    out_zero_point: int
    lo: int
    hi: int
    out: str = "int8"
    rounding: str = STEPS

    def reference(self, x, multiplier, shift) -> np.ndarray:
        view = pooled(self, x.astype(np.int32) - self.in_zero_point, (1, 1), 0)
        acc = view.sum(axis=(4, 5)) * self.factor
        multiplier, shift = (t.reshape(1, *self.out_shape, 1) for t in (multiplier, shift))
        limits = self.out_zero_point, self.lo, self.hi, self.out, self.rounding
        return requantize(acc, multiplier, shift, *limits)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        """int32 sums, one multiplier and shift per output pixel."""
        bounds = tir.Bounds(self.out_zero_point, self.lo, self.hi, dtype=self.out, rounding=self.rounding)

        def begin(width: int) -> Expr:
            return constant(0, "int32", width)

        def add(acc: Expr, x: Expr, width: int) -> Expr:
            return acc + (cast(x, "int32", width) - constant(self.in_zero_point, "int32", width))

        def emit(x: Flat, multiplier: Flat, shift: Flat, y: Flat) -> None:
            def finish(acc: Expr, number: Expr, width: int) -> Expr:
                scaled = T.bind(acc * constant(self.factor, "int32", width))
                factor, by = (splat(t.load(number), width) for t in (multiplier, shift))
                return tir.requantize(scaled, factor, by, bounds, width, unit.requantize)

            emit_pool(self, (1, 1), inputs[0], out, unit, "int32", begin, add, finish)(x, y)

        return emit


@dataclass(frozen=True)
class FloatAvgPool(FloatOperator):
    """(x [N,H,W,C], factor float32 [OH*OW]) -> [N,OH,OW,C].

    acc is a float32 that the window is added to in row-major order; y = acc * factor of the output pixel.
    """

    kind: ClassVar[str] = "float_avg_pool"
    family: ClassVar[str] = "avg_pool"
    pool_size: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    out_shape: tuple[int, int]
    lo: float
    hi: float
    in_zero_point: int = 0
    out: str = "float8_e4m3fn"
    out_zero_point: int = 0

    def reference(self, x, factor) -> np.ndarray:
        view = pooled(self, value(x, self.in_zero_point), (1, 1), np.float32(0))
        acc = np.zeros(view.shape[:4], np.float32)
        for ky, kx in np.ndindex(*self.pool_size):
            acc = acc + view[..., ky, kx]
        return stored(self, acc * factor.reshape(1, *self.out_shape, 1))


def _why_not(call: Any) -> str | None:
    if op_name(call) == "mean":
        return why_not_pixels(call)
    if op_name(call) == "nn.avg_pool2d" and str(call.attrs.layout) != "NCHW":
        return f"pooling of layout {call.attrs.layout}"
    return None


@lowers(
    "nn.avg_pool2d", "nn.adaptive_avg_pool2d", "mean", family="avg_pool", makes=(AvgPool, FloatAvgPool),
    why_not=_why_not,
)  # fmt: skip
def lower_avg_pool(e: Emitter, call: Any, out: Output) -> Any:
    """Means, in integers or in floats."""
    window, x = average_window(call), e.operand(call.args[0])
    size = window.size, window.strides, window.padding, window.out_shape
    op: Operator
    if out.in_floats:
        constants: tuple[np.ndarray, ...] = (
            (float(x.scale) / (out.scale * window.counts)).astype(np.float32),
        )
        op = FloatAvgPool(*size, *out.real_bounds(), x.zero, out.dtype, out.zero)
    else:
        most = 2**x.bits - 1 if x.bits <= 8 else x.reach
        factor = 2 ** floor(log2(ACCUMULATOR_LIMIT / (most * prod(window.size))))
        constants = multipliers_of(float(x.scale) / (out.scale * window.counts * factor))
        op = AvgPool(*size, factor, x.zero, out.zero, *out.code_bounds(), out.dtype)
    image = pixels_of(e, x, call) if op_name(call) == "mean" else e.images(x.tensor)
    shape = (x.shape[0], *window.out_shape, shape_of(image)[3])
    y = e.call(op, [image], constants, shape, out.dtype, out.image)
    return e.reshaped(e.from_images(y), shape_of(call))
