"""From codes to float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwptq.ir.operator import Operator, Shape
from hwptq.quant.float_values import value
from hwptq.tir.builder import Expr, Flat, cast, constant, exact_float32, spans, splat
from hwptq.tir.kernel import TensorType
from hwptq.tir.vector_unit import VectorUnit

from .float_operator import FloatOperator


@dataclass(frozen=True)
class Dequantize(Operator):
    """(x in an integer format) -> float32: (x - zero_point) * scale, one rounding."""

    kind: ClassVar[str] = "dequantize"
    without_rule: ClassVar[str] = "where a tensor leaves as float32"
    scale: float
    zero_point: int

    def reference(self, x) -> np.ndarray:
        return (x.astype(np.int32) - self.zero_point).astype(np.float32) * np.float32(self.scale)

    def element_by_element(self, unit: VectorUnit) -> bool:
        return unit.float_lanes == 1

    def runs_along(self, axis: int, inputs: Sequence[Shape]) -> tuple[int | None, ...] | None:
        return (axis,)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        def emit(x: Flat, y: Flat) -> None:
            def block(at: Expr, width: int, count: int) -> None:
                centred = cast(x.load(at, width), "int32", width) - constant(self.zero_point, "int32", width)
                scale = splat(exact_float32(self.scale), width)
                y.store(at, cast(centred, "float32", width) * scale, width)

            spans(y.size, unit.float_width(y.size), block)

        return emit


@dataclass(frozen=True)
class FloatDequantize(FloatOperator):
    """(x) -> float32: x * scale, one rounding."""

    kind: ClassVar[str] = "float_dequantize"
    family: ClassVar[str] = "dequantize"
    without_rule: ClassVar[str] = "where a tensor leaves as float32"
    scale: float

    def reference(self, x) -> np.ndarray:
        return value(x) * np.float32(self.scale)
