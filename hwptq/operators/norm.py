"""Layer norm and RMS norm over the last axis in integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.ir.dataflow import constant as array_of
from hwptq.ir.dataflow import op_name, shape_of
from hwptq.ir.operator import Operator, Shape, along_rows
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.operand import NotInteger
from hwptq.lowering.output import Output
from hwptq.lowering.rules import lowers
from hwptq.quant.integer_norm import SHORT, NormConstants, fraction_bits, norm_constants, normalize
from hwptq.tir.builder import Expr, Flat, cast, constant, splat
from hwptq.tir.kernel import TensorType
from hwptq.tir.requantize import Bounds, multiply_high, narrowed, rounding_shift
from hwptq.tir.row_multiplier import mean_of, multiplier_of_row
from hwptq.tir.rows import each_row, every_element, total
from hwptq.tir.vector_unit import VectorUnit

_COST = 6  # multiply-accumulates that take as long as a value
_ROW = 400  # and as the root and the division of a row
_HALF_WORD = 16


@dataclass(frozen=True)
class _Norm(Operator):
    """What norms share. eps, shift: see quant/integer_norm.py; out: the dtype of the result."""

    centered: ClassVar[bool]
    eps: int
    shift: int
    out_zero_point: int
    lo: int
    hi: int
    out: str = "int8"

    def runs_along(self, axis: int, inputs: Sequence[Shape]) -> tuple[int | None, ...] | None:
        return along_rows(axis, self.activations)

    def reference(self, x, multiplier, bias) -> np.ndarray:
        constants = NormConstants(multiplier, bias, self.shift, self.eps)
        y = normalize(x, constants, self.out_zero_point, self.lo, self.hi, self.centered)
        return y.astype(self.out)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        *lead, count = out.shape
        bits = fraction_bits(inputs[0].dtype)
        bounds = Bounds(self.out_zero_point, self.lo, self.hi, dtype=self.out)

        def emit(x: Flat, multiplier: Flat, bias: Flat, y: Flat) -> None:
            def row(at: list[Expr], number: Expr) -> None:
                source, target = x.behind(number * count), y.behind(number * count)
                summed, squares = self._sums(source, count, unit)
                mean = T.bind(mean_of(summed, count, bits))
                variance = count * squares + constant(self.eps, "int64")
                factor, by, lift = multiplier_of_row(
                    variance - cast(summed, "int64") * cast(summed, "int64"), count, bits
                )

                def block(at: Expr, width: int, stored: int) -> None:
                    wide = cast(source.load(at, width), "int32", width)
                    d = T.shift_left(wide, constant(bits, "int32", width)) - splat(mean, width)
                    d = T.bind(T.shift_left(d, splat(lift, width)))
                    n = multiply_high(d, splat(factor, width), width, unit.requantize)
                    n = rounding_shift(n, splat(by, width), width)
                    v = multiply_high(n, multiplier.load(at, width), width, unit.requantize)
                    biased = v + bias.load(at, width)
                    scaled = rounding_shift(biased, constant(self.shift, "int32", width), width)
                    target.store(at, narrowed(scaled, bounds, width, unit.requantize), width, stored)

                unit.cover(count, block)

            each_row(lead, unit, _COST * count + _ROW, lambda: row)

        return emit

    def _sums(self, x: Flat, count: int, unit: VectorUnit) -> tuple[Expr, Expr]:
        """The sum of a row, int32, or 0, and that of its squares, int64: their halves fit 32 bits each."""
        plain, low, high = (total(unit.lanes) for _ in range(3))

        def add(at: Expr, width: int) -> None:
            wide = T.bind(cast(x.load(at, width), "int32", width))
            square = T.bind(wide * wide)
            if self.centered:
                plain.add(wide, width)
            low.add(T.bitwise_and(square, constant(2**_HALF_WORD - 1, "int32", width)), width)
            high.add(T.shift_right(square, constant(_HALF_WORD, "int32", width)), width)

        every_element(count, unit, add)
        upper = T.shift_left(cast(high.result(), "int64"), constant(_HALF_WORD, "int64"))
        squares = T.bind(upper + cast(low.result(), "int64"))
        return (plain.result() if self.centered else constant(0, "int32")), squares


@dataclass(frozen=True)
class LayerNorm(_Norm):
    """(x int8 or int16 [..., C], multiplier int32 [C], bias int32 [C]) -> [..., C]; see
    quant/integer_norm.py. The zero point of x does not matter.
    """

    kind: ClassVar[str] = "layer_norm"
    centered: ClassVar[bool] = True


@dataclass(frozen=True)
class RmsNorm(_Norm):
    """(x int8 or int16 [..., C], multiplier int32 [C], bias int32 [C]) -> [..., C]; see
    quant/integer_norm.py. The zero point of x is 0.
    """

    kind: ClassVar[str] = "rms_norm"
    centered: ClassVar[bool] = False


def _why_not(call: Any) -> str | None:
    rank = len(shape_of(call))
    if [int(a) % rank for a in call.attrs.axes] != [rank - 1]:
        return "a norm over other axes than the last"
    if any(array_of(a) is None for a in call.args[1:]):
        return "a norm whose scale or offset is computed"
    return None if shape_of(call)[-1] <= SHORT else f"a norm of more than {SHORT} values"


@lowers("nn.layer_norm", family="layer_norm", makes=(LayerNorm,), why_not=_why_not)
def lower_layer_norm(e: Emitter, call: Any, out: Output) -> Any:
    """A layer norm over the last axis."""
    return _lowered(e, LayerNorm, call, out)


@lowers("nn.rms_norm", family="rms_norm", makes=(RmsNorm,), why_not=_why_not)
def lower_rms_norm(e: Emitter, call: Any, out: Output) -> Any:
    """An RMS norm over the last axis."""
    return _lowered(e, RmsNorm, call, out)


def _lowered(e: Emitter, kind: type[LayerNorm | RmsNorm], call: Any, out: Output) -> Any:
    x, reason = e.operand(call.args[0]), _why_not(call)
    if reason:
        raise NotInteger(reason)
    if out.in_floats or out.real or x.format.is_float or x.is_constant:
        raise NotInteger(f"{op_name(call)} of floats")
    if x.zero and not kind.centered:
        raise NotInteger("an RMS norm of a tensor with a zero point")
    gamma, beta, *_ = (*map(array_of, call.args[1:]), np.zeros(x.shape[-1], np.float32))
    assert gamma is not None
    assert beta is not None
    count = x.shape[-1]
    try:
        found = norm_constants(
            np.broadcast_to(gamma, (count,)), np.broadcast_to(beta, (count,)),
            float(call.attrs.epsilon), float(x.scale), out.scale,
        )  # fmt: skip
    except ValueError as error:
        raise NotInteger(str(error)) from error
    op = kind(found.eps, found.shift, out.zero, *out.code_bounds(), out.dtype)
    return e.call(op, [x.tensor], (found.multiplier, found.bias), x.shape, out.dtype, out.tensor)
