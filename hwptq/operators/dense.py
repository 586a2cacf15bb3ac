"""Dense layers: products with a constant weight, in integers, in floats, and from integers to a float."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tvm

from hwptq.formats import INT8
from hwptq.ir.composite import Composite, weight_of
from hwptq.ir.dataflow import shape_of
from hwptq.ir.operator import Operator, Shape, WeightedOperator, along_rows
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.layer import activation_bits, float_constants, integer_constants, residual_of
from hwptq.lowering.operand import NotInteger
from hwptq.lowering.output import Output
from hwptq.lowering.rules import lowers
from hwptq.quant.fixed_point import STEPS, requantize, shortened
from hwptq.quant.float_sums import product
from hwptq.quant.fp8_accumulate import Accumulator
from hwptq.quant.integer_sums import exact_matmul, largest_product
from hwptq.tir import requantize as tir
from hwptq.tir.builder import Expr, Flat, cast, local, loop, nest
from hwptq.tir.kernel import TensorType
from hwptq.tir.vector_unit import VectorUnit

from .clamp import emit_clamped
from .float_operator import FloatOperator, FloatProducts, stored
from .matmul import FloatMatMul, MatMul, lower_matmul
from .residual import with_residual


class _Dense(WeightedOperator):
    """What all dense layers share."""

    family: ClassVar[str] = "dense"

    def rule(self, constants: Sequence[np.ndarray]) -> str:
        """Without a constant weight there is no kernel."""
        return self.family if constants else ""

    def runs_along(self, axis: int, inputs: Sequence[Shape]) -> tuple[int | None, ...] | None:
        return along_rows(axis, self.activations)


class _IntegerDense(_Dense):
    """Those with portable code."""

    acc_shift: int

    def _acc(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray) -> np.ndarray:
        return shortened(exact_matmul(x, w.T, largest_product(x, w)) + bias, self.acc_shift)

    def element_by_element(self, unit: VectorUnit) -> bool:
        return True

    @property
    def bounds(self) -> tir.Bounds | None:
        """What follows the shift; None where the result is float32."""
        return None

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        """A dot product of two contiguous rows per output value."""
        co, depth = inputs[1].shape
        summed = tir.summed_in(self.acc_shift)

        def emit(x: Flat, weight: Flat, bias: Flat, *rest: Flat) -> None:
            *scales, y = rest

            def value(row: Expr, o: Expr) -> None:
                acc = local(1, summed)
                acc.store(0, cast(bias.load(o), summed))

                def step(i: Expr) -> None:
                    a, b = x.load(row * depth + i), weight.load(o * depth + i)
                    acc.store(0, acc.load(0) + cast(cast(a, "int32") * cast(b, "int32"), summed))

                loop(depth, step)
                total = tir.shortened(acc.load(0), self.acc_shift, 1)
                result = tir.finish(total, [s.load(o) for s in scales], self.bounds, 1)
                y.store(row * co + o, result)

            nest((y.size // co, co), value)

        return emit


@dataclass(frozen=True)
class Dense(_IntegerDense):
    """(x [..., K], w [O,K], bias int32 [O], multiplier int32 [O], shift int32 [O]) -> [..., O].

    weight_bits, activation_bits, weight_group, out and acc_shift as in Conv2d.
    """

    kind: ClassVar[str] = "dense"
    in_zero_point: int
    out_zero_point: int
    lo: int
    hi: int
    weight_bits: int = 8
    activation_bits: int = 8
    weight_group: int = 0
    out: str = "int8"
    acc_shift: int = 0
    rounding: str = STEPS

    def reference(self, x, w, bias, multiplier, shift) -> np.ndarray:
        acc = self._acc(x, w, bias)
        limits = self.out_zero_point, self.lo, self.hi, self.out, self.rounding
        return requantize(acc, multiplier, shift, *limits)

    @property
    def bounds(self) -> tir.Bounds:
        return tir.Bounds(self.out_zero_point, self.lo, self.hi, dtype=self.out, rounding=self.rounding)


@dataclass(frozen=True)
class DenseFloat(_IntegerDense):
    """(x [..., K], w [O,K], bias int32 [O], scale float32 [O]) -> float32 [..., O]: a Dense read as numbers.

    float32(acc) * scale: acc, as in Dense, is rounded once to the nearest float32, ties to even, and the
    product once. The fields as in Conv2d.
    """

    kind: ClassVar[str] = "dense_float"
    weight_bits: int = 8
    activation_bits: int = 8
    weight_group: int = 0
    acc_shift: int = 0

    def reference(self, x, w, bias, scale) -> np.ndarray:
        return self._acc(x, w, bias).astype(np.float32) * scale


@dataclass(frozen=True)
class DenseToFloat(_Dense, FloatOperator):
    """(x int8 [..., K], w int8 [O,K], bias int32 [O], scale float32 [O]) -> [..., O].

    y as in Conv2dToFloat.
    """

    kind: ClassVar[str] = "dense_to_float"
    in_zero_point: int
    lo: float
    hi: float
    out: str = "float8_e4m3fn"

    def reference(self, x, w, bias, scale) -> np.ndarray:
        return stored(self, (exact_matmul(x, w.T) + bias).astype(np.float32) * scale)


@dataclass(frozen=True)
class FloatDense(_Dense, FloatProducts):
    """(x [..., K], w [O,K], scale [O], bias [O]) -> [..., O]; y = fma(acc, scale, bias).

    `residual` as in FloatConv2d.
    """

    kind: ClassVar[str] = "float_dense"
    lo: float
    hi: float
    out: str
    accumulator: tuple[int, int, int]
    residual: float = 0.0
    residual_zero_point: int = 0
    out_zero_point: int = 0

    @property
    def activations(self) -> int:
        return 2 if self.residual else 1

    def reference(self, x, *args) -> np.ndarray:
        *residual, w, scale, bias = args
        acc = product(x.reshape(-1, x.shape[-1]), w, Accumulator(*self.accumulator))
        return stored(self, with_residual(self, acc.reshape(*x.shape[:-1], len(w)), scale, bias, residual))


def _family(mod: tvm.IRModule, call: Any) -> str | None:
    """A product with a constant matrix is a dense layer, one of two activations is not."""
    weight = weight_of(call)
    if weight is None:
        return "matmul"
    return "dense" if weight.ndim == 2 else None


@lowers(
    "composite.matmul",
    family=_family,
    makes=(Dense, DenseFloat, DenseToFloat, FloatDense, MatMul, FloatMatMul),
)
def lower_product(e: Emitter, unit: Composite, out: Output) -> Any:
    """In integers, in floats, or from integers to a float or to real numbers, as its ends are."""
    x, w = e.operand(unit.args[0]), e.operand(unit.args[1])
    if not w.is_constant:
        return lower_matmul(e, unit, x, w, out)
    if w.tensor.ndim != 2:
        raise NotInteger(f"a constant operand of rank {w.tensor.ndim}")
    shape = shape_of(unit.result)
    op: Operator
    if not out.in_floats:
        constants, by = integer_constants(unit, x, w, out)
        bits = out.weight_bits, activation_bits(x, out), out.weight_group
        if out.real:
            op = DenseFloat(*bits, by)
        else:
            op = Dense(x.zero, out.zero, *out.code_bounds(*unit.bounds), *bits, out.dtype, by)
    elif {x.dtype, w.dtype} == {INT8.held}:
        constants, _ = integer_constants(unit, x, w, out)
        op = DenseToFloat(x.zero, *out.real_bounds(*unit.bounds), out.dtype)
    else:
        constants = float_constants(unit, x, w, shape[-1], out)
        bounds = out.real_bounds(*unit.bounds)
        op = FloatDense(*bounds, out.dtype, e.accumulator(x), *residual_of(out), out.zero)
    tensors = [t.tensor for t in (x, out.residual) if t]
    return emit_clamped(e, op, tensors, constants, shape, unit, out, out.tensor)
