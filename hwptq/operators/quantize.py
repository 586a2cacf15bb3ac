"""From float32 to codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.formats import format_of
from hwptq.ir.operator import Operator, Shape
from hwptq.quant.float_values import store
from hwptq.tir.builder import Expr, Flat, cast, clamp, constant, exact_float32, spans, splat
from hwptq.tir.float_steps import SCALES, nearest, quotient
from hwptq.tir.kernel import TensorType
from hwptq.tir.vector_unit import VectorUnit

from .float_operator import FloatOperator

_BEYOND = 2  # steps beyond the range of the result that are as good as any


@dataclass(frozen=True)
class Quantize(Operator):
    """(x float32) -> codes of the integer format `out`: clamp(round_half_even(x / scale) + zero_point, qmin,
    qmax), scale a float32.
    """

    kind: ClassVar[str] = "quantize"
    without_rule: ClassVar[str] = "where a tensor enters from float32"
    scale: float
    zero_point: int
    out: str = "int8"

    def reference(self, x) -> np.ndarray:
        return format_of(self.out).encode(x, self.scale, self.zero_point)

    def element_by_element(self, unit: VectorUnit) -> bool:
        return unit.float_lanes == 1

    def runs_along(self, axis: int, inputs: Sequence[Shape]) -> tuple[int | None, ...] | None:
        return (axis,)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        def emit(x: Flat, y: Flat) -> None:
            def block(at: Expr, width: int, count: int) -> None:
                y.store(at, cast(quantized(self, x.load(at, width), width, unit), self.out, width), width)

            spans(y.size, unit.float_width(y.size), block)

        return emit


def quantized(op: Quantize, value: Expr, width: int, unit: VectorUnit) -> Expr:
    """float32 -> int32 in the range of the result."""
    ends = (format_of(op.out).qmin, format_of(op.out).qmax)
    shifted = _steps(op, value, ends, width, unit) + constant(float(op.zero_point), "float32", width)
    limits = (constant(float(v), "float32", width) for v in ends)
    return T.bind(cast(clamp(shifted, *limits), "int32", width))


def _steps(op: Quantize, value: Expr, ends: tuple[float, float], width: int, unit: VectorUnit) -> Expr:
    """value / scale, rounded to an integer half to even; anything beyond the range where it is."""
    if unit.divides or not SCALES[0] <= op.scale <= SCALES[1]:
        return T.nearbyint(value / splat(exact_float32(op.scale), width))
    beyond = (ends[0] - op.zero_point - _BEYOND, ends[1] - op.zero_point + _BEYOND)
    low, high = (splat(exact_float32(float(np.float32(v * op.scale))), width) for v in beyond)
    limited = T.bind(T.min(T.max(value, low), high))  # in this order NaN becomes the lower end
    return nearest(quotient(limited, op.scale, width), width)


@dataclass(frozen=True)
class FloatQuantize(FloatOperator):
    """(x float32) -> e4m3 or bfloat16: encode(x * factor), factor the float32 nearest to 1 / scale."""

    kind: ClassVar[str] = "float_quantize"
    family: ClassVar[str] = "quantize"
    without_rule: ClassVar[str] = "where a tensor enters from float32"
    factor: float
    out: str = "float8_e4m3fn"

    def reference(self, x) -> np.ndarray:
        with np.errstate(over="ignore"):
            return store(x.astype(np.float32) * np.float32(self.factor), self.out)
