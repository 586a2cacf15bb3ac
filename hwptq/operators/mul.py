"""Products of two tensors, element by element, in integers and in floats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.ir.operator import Operator
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.layer import multiplier_of
from hwptq.lowering.output import Output
from hwptq.lowering.rules import lowers
from hwptq.quant.fixed_point import STEPS, requantize
from hwptq.quant.float_values import value
from hwptq.tir.builder import Expr, cast, constant
from hwptq.tir.kernel import TensorType
from hwptq.tir.loops import emit_binary
from hwptq.tir.requantize import Bounds, finish
from hwptq.tir.vector_unit import VectorUnit

from .float_operator import FloatOperator, stored

#: Of a product of two int8 before it is requantized: keeps the multiplier below 1/2 for every sensible choice
#: of scales.
LEFT_SHIFT = 13


class _Product(Operator):
    """What products share."""

    family: ClassVar[str] = "mul"
    by_value: ClassVar[bool] = True

    @property
    def activations(self) -> int:
        return 2


@dataclass(frozen=True)
class Mul(_Product):
    """(a, b) -> broadcast shape; acc = ((a - za) * (b - zb)) << left_shift, then requantize.

    left_shift: 13 for two int8; a negative one shifts right, and rounds down. out: the dtype of the result.
    """

    kind: ClassVar[str] = "mul"
    a_zero_point: int
    b_zero_point: int
    multiplier: int
    shift: int
    out_zero_point: int
    lo: int
    hi: int
    left_shift: int = LEFT_SHIFT
    out: str = "int8"
    rounding: str = STEPS

    def reference(self, a, b) -> np.ndarray:
        product = (a.astype(np.int64) - self.a_zero_point) * (b.astype(np.int64) - self.b_zero_point)
        acc = product << self.left_shift if self.left_shift >= 0 else product >> -self.left_shift
        rest = self.out_zero_point, self.lo, self.hi, self.out, self.rounding
        return requantize(acc, self.multiplier, self.shift, *rest)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        bounds = Bounds(self.out_zero_point, self.lo, self.hi, dtype=self.out, rounding=self.rounding)

        def vector(a: Expr, b: Expr, lanes: int) -> Expr:
            centred = [
                cast(v, "int32", lanes) - constant(zero_point, "int32", lanes)
                for v, zero_point in ((a, self.a_zero_point), (b, self.b_zero_point))
            ]
            shift = T.shift_left if self.left_shift >= 0 else T.shift_right
            acc = T.bind(shift(centred[0] * centred[1], constant(abs(self.left_shift), "int32", lanes)))
            factors = [constant(v, "int32", lanes) for v in (self.multiplier, self.shift)]
            return finish(acc, factors, bounds, lanes, unit.requantize)

        return emit_binary(inputs, out, unit, vector)


@dataclass(frozen=True)
class FloatMul(_Product, FloatOperator):
    """(a, b) -> broadcast shape; y = (a * b) * factor."""

    kind: ClassVar[str] = "float_mul"
    factor: float
    lo: float
    hi: float
    a_zero_point: int = 0
    b_zero_point: int = 0
    out: str = "float8_e4m3fn"
    out_zero_point: int = 0

    def reference(self, a, b) -> np.ndarray:
        product = value(a, self.a_zero_point) * value(b, self.b_zero_point)
        return stored(self, product * np.float32(self.factor))


@lowers("multiply", family="mul", makes=(Mul, FloatMul))
def lower_mul(e: Emitter, call: Any, out: Output) -> Any:
    """A product of two tensors, in integers or in floats."""
    a, b = e.operands(call.args, out)
    product = float(a.scale) * float(b.scale)
    if out.in_floats:
        factor, zeros = float(np.float32(product / out.scale)), (a.zero, b.zero)
        return e.binary(FloatMul(factor, *out.real_bounds(), *zeros, out.dtype, out.zero), a, b, out)
    left = LEFT_SHIFT - sum(t.bits - 9 for t in (a, b) if t.bits > 8)
    multiplier, shift = multiplier_of(product / (2.0**left * out.scale))
    ends = multiplier, shift, out.zero, *out.code_bounds(), left, out.dtype
    return e.binary(Mul(a.zero, b.zero, *ends), a, b, out)
