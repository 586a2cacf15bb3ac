"""The operators on floats: the other side of those on integers.

They take any short float, e4m3 or bfloat16. Layers and products take both operands in one of them; the
others, and a residual, also take int8, whose value is then x - zero_point. real = value * scale; e4m3 has no
zero point, bfloat16 none and the scale 1. Whatever is computed in float32 on the way is one rounding to
nearest at a time, so results are defined to the bit: `fma(a, b, c)` rounds once. `lo` and `hi` are bounds of
the result y in the output's scale (infinite where there is none); a clamp turns NaN into `lo`, without one
NaN stays NaN.

`out` is the dtype of the output: float8_e4m3fn, encoded as fp8.encode says; bfloat16, as bf16.encode does;
int8, which is clamp(round_half_even(y) + out_zero_point, -128, 127) with -128 for NaN; or float32 at the end
of a graph, where y is the real value. `accumulator` holds the fields of fp8_accumulate.Accumulator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tvm

from hwptq.ir.callback import callback
from hwptq.ir.operator import Operator
from hwptq.quant.float_values import clamp, store
from hwptq.tir.kernel import TensorType
from hwptq.tir.vector_unit import SCALAR, VectorUnit


class FloatOperator(Operator):
    """An operator on floats. Without the chip that it is made for, its reference is its code."""

    def primfunc(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit = SCALAR
    ) -> tvm.tirx.PrimFunc:
        """The PrimFunc (inputs…, out) that hands its tensors to the reference."""
        return callback(self, inputs, out)


class FloatProducts(FloatOperator):
    """An operator on floats that adds up products."""

    accumulator: tuple[int, int, int]

    @property
    def in_order(self) -> bool:
        """Whether it adds its products one after the other, which tensor cores don't."""
        return self.accumulator[0] == 1


def stored(op: Any, y: np.ndarray) -> np.ndarray:
    """float32 results of `op`, clamped, in the dtype of its output."""
    return store(clamp(y, op.lo, op.hi), op.out, getattr(op, "out_zero_point", 0))
