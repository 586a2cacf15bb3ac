"""The same values in another scale, or in another integer format, in fixed point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.ir.operator import Operator
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.layer import multiplier_of
from hwptq.lowering.operand import NotInteger, Operand
from hwptq.lowering.output import Output
from hwptq.quant.fixed_point import STEPS, requantize
from hwptq.tir.builder import Expr, Flat, cast, constant
from hwptq.tir.kernel import TensorType
from hwptq.tir.requantize import Bounds, finish
from hwptq.tir.vector_unit import VectorUnit

from .lookup import emit_table

#: Of an int16 value: as far as it goes.
LEFT_SHIFT = 14


@dataclass(frozen=True)
class Rescale(Operator):
    """(x int16) -> requantize(x << 14), in the dtype `out`; x has the zero point 0.

    Of int8 a Lookup does the same, exactly rounded.
    """

    kind: ClassVar[str] = "rescale"
    by_value: ClassVar[bool] = True
    without_rule: ClassVar[str] = "a tensor of int16 that is read in another scale"
    multiplier: int
    shift: int
    out_zero_point: int
    lo: int
    hi: int
    out: str
    rounding: str = STEPS

    def rule(self, constants: Sequence[np.ndarray]) -> str:
        """No descriptor lists it."""
        return ""

    def reference(self, x) -> np.ndarray:
        acc = x.astype(np.int64) << LEFT_SHIFT
        rest = self.out_zero_point, self.lo, self.hi, self.out, self.rounding
        return requantize(acc, self.multiplier, self.shift, *rest)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        bounds = Bounds(self.out_zero_point, self.lo, self.hi, dtype=self.out, rounding=self.rounding)

        def emit(x: Flat, y: Flat) -> None:
            def block(at: Expr, width: int, count: int) -> None:
                wide = cast(x.load(at, width), "int32", width)
                acc = T.bind(T.shift_left(wide, constant(LEFT_SHIFT, "int32", width)))
                factors = [constant(v, "int32", width) for v in (self.multiplier, self.shift)]
                y.store(at, finish(acc, factors, bounds, width, unit.requantize), width, count)

            unit.cover(y.size, block)

        return emit


def rescaled(e: Emitter, x: Operand, out: Output) -> Any:
    """The same values in the format and scale of a result: by a table where that is small or of floats."""
    if (x.dtype, float(x.scale), x.zero) == (out.dtype, out.scale, out.zero):
        return x.tensor
    if x.bits <= 8 or x.format.is_float or out.in_floats:
        return emit_table(e, x, x.points, out)
    if x.zero:
        raise NotInteger("an int16 tensor with a zero point")
    multiplier, shift = multiplier_of(float(x.scale) / (out.scale * 2.0**LEFT_SHIFT))
    return e.elementwise(Rescale(multiplier, shift, out.zero, *out.code_bounds(), out.dtype), x, (), out)
