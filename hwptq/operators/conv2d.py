"""Convolutions of images: in integers, in floats, and from integers to a float."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product as pairs
from typing import Any, ClassVar

import numpy as np
import tvm
from tvm.script.ir_builder import tirx as T

from hwptq.formats import INT8
from hwptq.ir.composite import Composite, read_composite, weight_of
from hwptq.ir.dataflow import shape_of
from hwptq.ir.operator import Operator, Shape, WeightedOperator
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.layer import activation_bits, float_constants, integer_constants, residual_of
from hwptq.lowering.operand import NotInteger, four, pair
from hwptq.lowering.output import Output
from hwptq.lowering.rules import lowers
from hwptq.quant.bf16_accumulate import exact_products, multiply_add
from hwptq.quant.fixed_point import STEPS, requantize, shortened
from hwptq.quant.float_sums import parts_of_window, product
from hwptq.quant.float_values import codes, value
from hwptq.quant.fp8_accumulate import Accumulator
from hwptq.quant.integer_sums import convolution_sum
from hwptq.quant.window import conv_output_shape, pad_image, rows_read, windows
from hwptq.tir import requantize as tir
from hwptq.tir.builder import Expr, Flat, cast, constant, local, loop, nest
from hwptq.tir.kernel import TensorType
from hwptq.tir.vector_unit import VectorUnit
from hwptq.tir.windows import inside, leaves_image, when

from .clamp import emit_clamped
from .float_operator import FloatOperator, FloatProducts, stored
from .residual import with_residual


class _Convolution(WeightedOperator):
    """What all convolutions of images share."""

    family: ClassVar[str] = "conv2d"
    groups: int

    @property
    def grouped(self) -> bool:
        return self.groups > 1

    def rule(self, constants: Sequence[np.ndarray]) -> str:
        """A depthwise convolution has kernels of its own; without a constant weight there is none."""
        if not constants:
            return ""
        channels, _, _, depth = constants[0].shape
        depthwise = self.grouped and depth == 1 and channels == self.groups
        return "depthwise_conv2d" if depthwise else self.family


@dataclass(frozen=True)
class Conv2d(_Convolution):
    """(x [N,H,W,I], w [O,KH,KW,I/groups], bias [O], multiplier [O], shift [O]) -> [N,OH,OW,O].

    bias, multiplier and shift are int32. acc = bias + sum x*w, with x = in_zero_point in the padding. The
    bias already holds -in_zero_point * sum w, so x enters as it is stored. groups == I == O / m is a
    depthwise convolution with multiplier m. `lo` and `hi` are the inclusive bounds of the output: the int8
    range, narrowed by a fused activation.

    weight_bits = 4: every weight is 16 times an int4 value, so a kernel may store its upper nibble only; the
    factor is part of the scale. With a weight_group as well, that many input channels of a tap have a factor
    of their own, 1 … 16, in place of 16 (quant/weight_groups.py). activation_bits = 4: every x lies in
    [-8, 7]. None of it changes the arithmetic.

    activation_bits = 16: x is int16, of zero point 0. out: the dtype of the result. acc_shift: bits that acc,
    an int64 then, is shortened by before it is requantized; 0 = acc is an int32.
    """

    kind: ClassVar[str] = "conv2d"
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]  # top, left, bottom, right
    dilation: tuple[int, int]
    groups: int
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
        acc = shortened(convolution_sum(self, x, w, bias), self.acc_shift)
        limits = self.out_zero_point, self.lo, self.hi, self.out, self.rounding
        return requantize(acc, multiplier, shift, *limits)

    @property
    def bounds(self) -> tir.Bounds:
        """What follows the shift."""
        return tir.Bounds(self.out_zero_point, self.lo, self.hi, dtype=self.out, rounding=self.rounding)

    def element_by_element(self, unit: VectorUnit) -> bool:
        return True

    def of_rows(self, rows: range, inputs: Sequence[Shape]) -> tuple[Operator, list[range]] | None:
        top, left, _, right = self.padding
        (_, height, *_), (_, size, *_) = inputs[:2]
        seen, above, below = rows_read(rows, height, size, self.strides[0], self.dilation[0], top)
        return (replace(self, padding=(above, left, below, right)), [seen]) if seen else None

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        """Groups included: one scalar accumulator per output value."""
        n, h, w, ci = inputs[0].shape
        co, kh, kw, depth = inputs[1].shape
        _, oh, ow, _ = out.shape
        if self.groups < 1 or ci != depth * self.groups or co % self.groups:
            raise ValueError(f"conv2d: {self.groups} groups do not fit {ci} -> {co} channels, depth {depth}")
        padded = leaves_image(self, (kh, kw), self.dilation, (h, w), (oh, ow))
        summed = tir.summed_in(self.acc_shift)

        def emit(x: Flat, weight: Flat, bias: Flat, multiplier: Flat, shift: Flat, y: Flat) -> None:
            def value(b: Expr, oy: Expr, ox: Expr, o: Expr) -> None:
                acc = local(1, summed)
                acc.store(0, cast(bias.load(o), summed))
                first = T.floordiv(o, co // self.groups) * depth

                def tap(ky: Expr, kx: Expr) -> None:
                    row = oy * self.strides[0] + ky * self.dilation[0] - self.padding[0]
                    col = ox * self.strides[1] + kx * self.dilation[1] - self.padding[1]
                    pixel = ((b * h + row) * w + col) * ci + first
                    taps = ((o * kh + ky) * kw + kx) * depth

                    def real(i: Expr) -> None:
                        product = cast(x.load(pixel + i), "int32") * cast(weight.load(taps + i), "int32")
                        acc.store(0, acc.load(0) + cast(product, summed))

                    def padding(i: Expr) -> None:
                        product = cast(weight.load(taps + i), "int32") * constant(self.in_zero_point, "int32")
                        acc.store(0, acc.load(0) + cast(product, summed))

                    when(
                        inside(row, col, (h, w), padded),
                        lambda: loop(depth, real),
                        lambda: loop(depth, padding),
                    )

                nest((kh, kw), tap)
                total = tir.shortened(acc.load(0), self.acc_shift, 1)
                result = tir.requantize(total, multiplier.load(o), shift.load(o), self.bounds, 1)
                y.store(((b * oh + oy) * ow + ox) * co + o, result)

            nest((n, oh, ow, co), value)

        return emit


@dataclass(frozen=True)
class Conv2dToFloat(_Convolution, FloatOperator):
    """(x int8 [N,H,W,I], w int8 [O,KH,KW,I/groups], bias int32 [O], scale float32 [O]) -> [N,OH,OW,O].

    A layer in integers before one in floats: y = float32(acc) * scale, with acc as in Conv2d, rounded once to
    the nearest float32, ties to even, and the product once.
    """

    kind: ClassVar[str] = "conv2d_to_float"
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]  # top, left, bottom, right
    dilation: tuple[int, int]
    groups: int
    in_zero_point: int
    lo: float
    hi: float
    out: str = "float8_e4m3fn"

    def reference(self, x, w, bias, scale) -> np.ndarray:
        return stored(self, convolution_sum(self, x, w, bias).astype(np.float32) * scale)


@dataclass(frozen=True)
class FloatConv2d(_Convolution, FloatProducts):
    """(x [N,H,W,I], w [O,KH,KW,I/groups], scale [O], bias [O]) -> [N,OH,OW,O]; scale and bias float32.

    y = fma(acc, scale, bias). With a factor `residual` other than 0 a tensor r of the output's shape follows
    x, and y becomes fma(value of r, residual, y).

    groups = 1: acc as in fp8_accumulate or bf16_accumulate, over taps in row-major order and the channels of
    each; every part of the window (parts_of_window) is padded with zeros to a multiple of the accumulator's
    step. groups > 1: acc is a float32 that the products are added to in that order, fma(x, w, acc), those of
    the padding's zeros too.
    """

    kind: ClassVar[str] = "float_conv2d"
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]  # top, left, bottom, right
    dilation: tuple[int, int]
    groups: int
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

    @property
    def in_order(self) -> bool:
        """Groups too are summed so."""
        return self.grouped or super().in_order

    def reference(self, x, *args) -> np.ndarray:
        *residual, w, scale, bias = args
        o, kh, kw, _ = w.shape
        oh, ow = conv_output_shape(x.shape[1:3], (kh, kw), self.strides, self.padding, self.dilation)
        padded = pad_image(codes(x), self.padding, 0).view(x.dtype)
        view = windows(padded, (kh, kw), self.strides, self.dilation, (oh, ow)).transpose(0, 1, 2, 4, 5, 3)
        acc = self._summed(view, w).reshape(x.shape[0], oh, ow, o)
        return stored(self, with_residual(self, acc, scale, bias, residual))

    def _summed(self, view: np.ndarray, w: np.ndarray) -> np.ndarray:
        """The sums of the products of windows [N,OH,OW,KH,KW,C]."""
        if self.groups > 1:
            return _grouped(view, w, self.groups)
        step, _, _ = self.accumulator
        parts = parts_of_window(w.shape, step)
        cols, rows = (_parts(t.reshape(-1, *parts), step) for t in (view, w))
        return product(cols, rows, Accumulator(*self.accumulator))


def _parts(x: np.ndarray, step: int) -> np.ndarray:
    """[rows, parts, products of each] -> [rows, K], each part filled with zeros to whole steps."""
    filled = np.pad(codes(x), [(0, 0), (0, 0), (0, -x.shape[2] % step)])
    return filled.reshape(len(x), -1).view(x.dtype)


def _grouped(view: np.ndarray, w: np.ndarray, groups: int) -> np.ndarray:
    """The sums of a grouped convolution in order; view [N,OH,OW,KH,KW,C]."""
    o, kh, kw, depth = w.shape
    x = value(view).reshape(*view.shape[:5], groups, 1, depth)
    weights = value(w).reshape(groups, o // groups, kh, kw, depth)
    exact = exact_products(x, weights)
    acc = np.zeros((*view.shape[:3], groups, o // groups), np.float32)
    for ky, kx, i in pairs(range(kh), range(kw), range(depth)):
        acc = multiply_add(acc, x[:, :, :, ky, kx, :, :, i], weights[:, :, ky, kx, i], exact)
    return acc


def _family(mod: tvm.IRModule, call: Any) -> str | None:
    """Depthwise convolutions have a name of their own; without a constant weight there is no layer."""
    unit, weight = read_composite(mod, call), weight_of(call)
    if unit is None or weight is None or weight.ndim != 4:
        return None
    groups = int(unit.head.attrs.groups)
    return "depthwise_conv2d" if groups > 1 and groups == shape_of(call.args[0])[1] else "conv2d"


@lowers("composite.conv2d", family=_family, makes=(Conv2d, Conv2dToFloat, FloatConv2d))
def lower_conv2d(e: Emitter, unit: Composite, out: Output) -> Any:
    """In integers, in floats, or from integers to a float, as input, weight and result are."""
    attrs = unit.head.attrs
    if str(attrs.data_layout) != "NCHW" or str(attrs.kernel_layout) != "OIHW":
        raise NotInteger(f"conv2d of layout {attrs.data_layout}/{attrs.kernel_layout}")
    x, w = e.operand(unit.args[0]), e.operand(unit.args[1])
    window = pair(attrs.strides), four(attrs.padding), pair(attrs.dilation), int(attrs.groups)
    n, channels, height, width = shape_of(unit.result)
    op: Operator
    if not out.in_floats:
        constants, by = integer_constants(unit, x, w, out)
        bits = out.weight_bits, activation_bits(x, out), out.weight_group
        op = Conv2d(*window, x.zero, out.zero, *out.code_bounds(*unit.bounds), *bits, out.dtype, by)
    elif {x.dtype, w.dtype} == {INT8.held}:
        constants, _ = integer_constants(unit, x, w, out)
        op = Conv2dToFloat(*window, x.zero, *out.real_bounds(*unit.bounds), out.dtype)
    else:
        constants = float_constants(unit, x, w, channels, out)
        ends = *out.real_bounds(*unit.bounds), out.dtype, e.accumulator(x)
        op = FloatConv2d(*window, *ends, *residual_of(out), out.zero)
    tensors = [e.images(t.tensor) for t in (x, out.residual) if t]
    shape = (n, height, width, channels)
    return e.from_images(emit_clamped(e, op, tensors, constants, shape, unit, out, out.image))
