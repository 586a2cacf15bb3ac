"""From float32 to codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.formats import format_of
from hwptq.ir.operator import Operator
from hwptq.quant.float_values import store
from hwptq.tir.builder import Expr, Flat, cast, clamp, constant, exact_float32, spans, splat
from hwptq.tir.kernel import TensorType
from hwptq.tir.vector_unit import VectorUnit

from .float_operator import FloatOperator


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

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        def emit(x: Flat, y: Flat) -> None:
            def block(at: Expr, width: int, count: int) -> None:
                y.store(at, cast(quantized(self, x.load(at, width), width), self.out, width), width)

            spans(y.size, unit.float_lanes, block)

        return emit


def quantized(op: Quantize, value: Expr, width: int) -> Expr:
    """float32 -> int32 in the range of the result. nearbyint rounds half to even, as the reference does."""
    scaled = T.nearbyint(value / splat(exact_float32(op.scale), width))
    shifted = scaled + constant(float(op.zero_point), "float32", width)
    ends = (format_of(op.out).qmin, format_of(op.out).qmax)
    limits = (constant(float(v), "float32", width) for v in ends)
    return T.bind(cast(clamp(shifted, *limits), "int32", width))


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
