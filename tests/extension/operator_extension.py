"""An operator of one's own: the larger of two tensors, which hwptq leaves in float.

Importing this file is all it takes: nodes between quantized tensors then compute in integers on every device
that runs portable code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.ir.operator import Operator
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.layer import multiplier_of
from hwptq.lowering.operand import NotInteger
from hwptq.lowering.output import Output
from hwptq.lowering.rules import lowers
from hwptq.quant.fixed_point import requantize
from hwptq.tir.builder import Expr, cast, constant
from hwptq.tir.kernel import TensorType
from hwptq.tir.loops import emit_binary
from hwptq.tir.requantize import Bounds, finish
from hwptq.tir.vector_unit import VectorUnit

_FRACTION_BITS = 20


@dataclass(frozen=True)
class Maximum(Operator):
    """(a, b) int8 -> broadcast shape; acc = max((a - za) * a_factor, (b - zb) * b_factor), then requantize.

    The factors bring both operands to one scale, in steps of 2^-20 of the coarser one.
    """

    kind: ClassVar[str] = "maximum"
    a_zero_point: int
    b_zero_point: int
    a_factor: int
    b_factor: int
    multiplier: int
    shift: int
    out_zero_point: int
    lo: int
    hi: int

    @property
    def activations(self) -> int:
        return 2

    def reference(self, a, b) -> np.ndarray:
        first = (a.astype(np.int64) - self.a_zero_point) * self.a_factor
        second = (b.astype(np.int64) - self.b_zero_point) * self.b_factor
        acc = np.maximum(first, second)
        return requantize(acc, self.multiplier, self.shift, self.out_zero_point, self.lo, self.hi)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        bounds = Bounds(self.out_zero_point, self.lo, self.hi)

        def scaled(value: Expr, zero_point: int, factor: int, lanes: int) -> Expr:
            centred = cast(value, "int32", lanes) - constant(zero_point, "int32", lanes)
            return centred * constant(factor, "int32", lanes)

        def vector(a: Expr, b: Expr, lanes: int) -> Expr:
            first = scaled(a, self.a_zero_point, self.a_factor, lanes)
            second = scaled(b, self.b_zero_point, self.b_factor, lanes)
            factors = [constant(v, "int32", lanes) for v in (self.multiplier, self.shift)]
            return finish(T.bind(T.max(first, second)), factors, bounds, lanes, unit.requantize)

        return emit_binary(inputs, out, unit, vector)


@lowers("maximum", family="maximum", makes=(Maximum,), everywhere=True)
def lower_maximum(e: Emitter, call: Any, out: Output) -> Any:
    """In integers where both operands and the result are int8."""
    a, b = e.operands(call.args, out)
    if out.in_floats or {a.dtype, b.dtype, out.dtype} != {"int8"}:
        raise NotInteger("the larger of other tensors than int8")
    coarse = max(float(a.scale), float(b.scale))
    factors = [round(float(t.scale) / coarse * 2**_FRACTION_BITS) for t in (a, b)]
    multiplier, shift = multiplier_of(coarse / (2**_FRACTION_BITS * out.scale))
    op = Maximum(a.zero, b.zero, *factors, multiplier, shift, out.zero, *out.code_bounds())
    return e.binary(op, a, b, out)
