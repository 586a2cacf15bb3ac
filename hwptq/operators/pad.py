"""Padding with a constant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hwptq.ir.operator import Operator
from hwptq.quant.float_values import codes
from hwptq.tir.builder import Flat, constant
from hwptq.tir.kernel import TensorType
from hwptq.tir.loops import merged, row_major, walk
from hwptq.tir.vector_unit import VectorUnit

from .float_operator import FloatOperator


@dataclass(frozen=True)
class Pad(Operator):
    """(x) -> x padded with `value` by `before[i]`, `after[i]` elements on axis i."""

    kind: ClassVar[str] = "pad"
    before: tuple[int, ...]
    after: tuple[int, ...]
    value: int

    def reference(self, x) -> np.ndarray:
        return np.pad(x, list(zip(self.before, self.after, strict=True)), constant_values=self.value)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        """Fill the output, then copy the input into it."""
        (x_type,) = inputs
        steps = row_major(out.shape)
        first = sum(b * s for b, s in zip(self.before, steps, strict=True))
        loops = merged(x_type.shape, [row_major(x_type.shape), steps])

        def emit(x: Flat, y: Flat) -> None:
            unit.cover(y.size, lambda at, n, count: y.store(at, constant(self.value, y.dtype, n), n, count))
            walk(loops, unit, lambda at, n, count: y.store(first + at[1], x.load(at[0], n), n, count))

        return emit


@dataclass(frozen=True)
class FloatPad(FloatOperator):
    """(x) -> x padded with `value` (a code) by `before[i]`, `after[i]` elements on axis i."""

    kind: ClassVar[str] = "float_pad"
    family: ClassVar[str] = "pad"
    before: tuple[int, ...]
    after: tuple[int, ...]
    value: int

    def reference(self, x) -> np.ndarray:
        widths = list(zip(self.before, self.after, strict=True))
        return np.pad(codes(x), widths, constant_values=self.value).view(x.dtype)
