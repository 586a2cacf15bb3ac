"""Products of two activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np

from hwptq.ir.composite import Composite
from hwptq.ir.dataflow import shape_of
from hwptq.ir.operator import Contraction, Operator, Shape
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.layer import multiplier_of
from hwptq.lowering.operand import NotInteger, Operand
from hwptq.lowering.output import Output
from hwptq.quant.fixed_point import ACCUMULATOR_LIMIT, STEPS, requantize, shortened, shortening
from hwptq.quant.float_sums import product
from hwptq.quant.fp8_accumulate import Accumulator
from hwptq.quant.integer_sums import exact_matmul, largest_product
from hwptq.tir import requantize as tir
from hwptq.tir.builder import Expr, Flat, cast, constant, local, loop, nest, splat
from hwptq.tir.kernel import TensorType
from hwptq.tir.loops import broadcast_strides, row_major
from hwptq.tir.vector_unit import VectorUnit

from .float_operator import FloatProducts, stored
from .in_bytes import reads_bytes


class _Product(Operator):
    """What products of two activations share."""

    family: ClassVar[str] = "matmul"

    @property
    def activations(self) -> int:
        return 2

    def macs(self, inputs: Sequence[Shape], out: Shape) -> int:
        return prod(out) * inputs[0][-1]

    def runs_along(self, axis: int, inputs: Sequence[Shape]) -> tuple[int | None, ...] | None:
        return {-1: (None, -1), -2: (-2, None)}.get(axis, (axis, axis))


@dataclass(frozen=True)
class MatMul(_Product):
    """(a [..., M,K], b [..., K,N]) -> [..., M,N], leading axes broadcast; acc = sum (a - za) * (b - zb).

    activation_bits = 16: an operand is int16, of zero point 0. out and acc_shift as in Conv2d.
    """

    kind: ClassVar[str] = "matmul"
    a_zero_point: int
    b_zero_point: int
    multiplier: int
    shift: int
    out_zero_point: int
    lo: int
    hi: int
    activation_bits: int = 8
    out: str = "int8"
    acc_shift: int = 0
    rounding: str = STEPS

    def rule(self, constants: Sequence[np.ndarray]) -> str:
        return super().rule(constants) if reads_bytes(self) else ""

    @property
    def contraction(self) -> Contraction:
        return Contraction((-1, -2), (self.a_zero_point, self.b_zero_point))

    def reference(self, a, b) -> np.ndarray:
        centred = (a.astype(np.int32) - self.a_zero_point, b.astype(np.int32) - self.b_zero_point)
        acc = shortened(exact_matmul(*centred, largest_product(a, b)), self.acc_shift)
        rest = self.out_zero_point, self.lo, self.hi, self.out, self.rounding
        return requantize(acc, self.multiplier, self.shift, *rest)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        """Vectors along N. Raises ValueError for operands of rank 1."""
        a_shape, b_shape = inputs[0].shape, inputs[1].shape
        if min(len(a_shape), len(b_shape)) < 2:
            raise ValueError("matmul: operands of rank 1 are not supported")
        (rows, depth), cols = a_shape[-2:], b_shape[-1]
        batch = out.shape[:-2]
        a_steps, b_steps = (broadcast_strides(s[:-2], batch) for s in (a_shape, b_shape))
        bounds = tir.Bounds(self.out_zero_point, self.lo, self.hi, dtype=self.out, rounding=self.rounding)
        summed = tir.summed_in(self.acc_shift)

        def emit(a: Flat, b: Flat, y: Flat) -> None:
            def row(*indices: Expr) -> None:
                *outer, m = indices
                a_row = (sum(i * s for i, s in zip(outer, a_steps, strict=True)) * rows + m) * depth
                b_first = sum(i * s for i, s in zip(outer, b_steps, strict=True)) * depth * cols
                y_row = (sum(i * s for i, s in zip(outer, row_major(batch), strict=True)) * rows + m) * cols

                def block(at: Expr, width: int, count: int) -> None:
                    acc = local(width, summed)
                    acc.store(0, constant(0, summed, width), width)

                    def step(k: Expr) -> None:
                        left = cast(a.load(a_row + k), "int32") - constant(self.a_zero_point, "int32")
                        right = cast(b.load(b_first + k * cols + at, width), "int32", width)
                        centred = right - constant(self.b_zero_point, "int32", width)
                        product = cast(splat(left, width) * centred, summed, width)
                        acc.store(0, acc.load(0, width) + product, width)

                    loop(depth, step)
                    multiplier, shift = (constant(v, "int32", width) for v in (self.multiplier, self.shift))
                    total = tir.shortened(acc.load(0, width), self.acc_shift, width)
                    result = tir.requantize(total, multiplier, shift, bounds, width, unit.requantize)
                    y.store(y_row + at, result, width, count)

                unit.cover(cols, block)

            nest((*batch, rows), row)

        return emit


@dataclass(frozen=True)
class FloatMatMul(_Product, FloatProducts):
    """(a [..., M,K], b [..., K,N]) -> [..., M,N], equal leading axes; y = acc * factor."""

    kind: ClassVar[str] = "float_matmul"
    factor: float
    lo: float
    hi: float
    out: str
    accumulator: tuple[int, int, int]
    out_zero_point: int = 0

    def reference(self, a, b) -> np.ndarray:
        acc = product(a, np.ascontiguousarray(np.swapaxes(b, -1, -2)), Accumulator(*self.accumulator))
        return stored(self, acc * np.float32(self.factor))


def lower_matmul(e: Emitter, unit: Composite, a: Operand, b: Operand, out: Output) -> Any:
    """A product of two activations, in integers or in floats."""
    lower = _in_floats if out.in_floats else _in_integers
    op = lower(e, unit, a, b, out)
    return e.call(op, [a.tensor, b.tensor], (), shape_of(unit.result), out.dtype, out.tensor)


def _in_integers(e: Emitter, unit: Composite, a: Operand, b: Operand, out: Output) -> Operator:
    if min(len(a.shape), len(b.shape)) < 2:
        raise NotInteger("an operand of rank 1")
    depth, wide = a.shape[-1], max(a.bits, b.bits)
    if unit.bias is not None or (wide <= 8 and depth * 255 * 255 > ACCUMULATOR_LIMIT):
        raise NotInteger("its 32-bit accumulator could overflow")
    by = shortening(depth * a.reach * b.reach)
    product = float(a.scale) * float(b.scale) * unit.factor
    multiplier, shift = multiplier_of(product * 2.0**by / out.scale)
    bounds = out.code_bounds(*unit.bounds)
    return MatMul(a.zero, b.zero, multiplier, shift, out.zero, *bounds, wide, out.dtype, by)


def _in_floats(e: Emitter, unit: Composite, a: Operand, b: Operand, out: Output) -> Operator:
    if min(len(a.shape), len(b.shape)) < 2 or a.shape[:-2] != b.shape[:-2]:
        raise NotInteger("operands of different leading axes")
    if unit.bias is not None or a.is_constant:
        raise NotInteger("a product of a constant")
    if a.dtype != b.dtype or not a.format.is_float:
        raise NotInteger("operands of different dtypes")
    factor = float(np.float32(float(a.scale) * float(b.scale) * unit.factor / out.scale))
    return FloatMatMul(factor, *out.real_bounds(*unit.bounds), out.dtype, e.accumulator(a), out.zero)
