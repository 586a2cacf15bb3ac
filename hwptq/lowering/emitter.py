"""Emits operators into a new function; what the rules of operators are given."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
from tvm import relax

from hwptq.formats import E4M3, INT8, Format, integers_in
from hwptq.ir.composite import is_clamped, read_composite
from hwptq.ir.dataflow import Rewriter, constant, op_name, shape_of
from hwptq.ir.operator import Operator, to_json
from hwptq.ir.provenance import Origin
from hwptq.ir.qdq import dequantizes, quantizes, scale_and_zero
from hwptq.quant.fixed_point import STEPS
from hwptq.quant.float_sums import Accumulators
from hwptq.quant.qparams import ANY_GRID, Grid
from hwptq.tir.kernel import TensorType

from .operand import NotInteger, Operand, constant_operand
from .output import Output


class Emitter:
    """Emits operators for the nodes of a QDQ function, keeping each image in NHWC beside its NCHW form.

    values: var -> its expression, of the QDQ function; accumulators: what the device sums products of floats
    in; rounding: how it rounds sums, one of quant/fixed_point.py; grid: which scales it has.
    """

    def __init__(
        self, rewriter: Rewriter, values: dict[Any, Any], accumulators: Accumulators, rounding: str = STEPS,
        grid: Grid = ANY_GRID,
    ):  # fmt: skip
        self.r, self.mod, self.values = rewriter, rewriter.mod, values
        self.nhwc: dict[Any, Any] = {}  # NCHW expression -> the same tensor in NHWC
        self._accumulators, self._rounding, self.grid = accumulators, rounding, grid
        self._functions: dict[Any, Any] = {}

    def operand(self, expr: Any, constants: Format = INT8) -> Operand:
        """An argument as a quantized tensor; a real constant in the format `constants`.

        Raises NotInteger where it is not quantized.
        """
        real = constant(expr)
        if real is not None:
            return constant_operand(real, constants, self.grid)
        value: Any = self.values.get(expr)
        if not dequantizes(value):
            raise NotInteger("an input is not quantized")
        source = value.args[0]
        weight = constant(source)
        if weight is not None:
            scales, zeros = scale_and_zero(value)
            if zeros is None or not np.any(zeros):
                return Operand(weight, np.asarray(scales), 0, shape_of(expr))
            if zeros.size > 1:
                raise NotInteger("a constant with several zero points")
            return Operand(weight, np.asarray(scales), int(zeros.item()), shape_of(expr))
        scale, zero = tensor_params(value)
        return Operand(self.r.get(source), np.asarray(scale, np.float32), zero, shape_of(expr))

    def codes_of(self, expr: Any) -> Format:
        """The integers that a quantized tensor holds: of fewer bits than its dtype where it is clipped."""
        x = self.operand(expr)
        dequantize: Any = self.values.get(expr)
        quantize: Any = self.values.get(dequantize.args[0]) if dequantize is not None else None
        limited: Any = self.values.get(quantize.args[0]) if quantizes(quantize) else None
        unit = read_composite(self.mod, limited)
        if op_name(limited) == "clip":
            bounds = [a.value for a in limited.args[1:3]]
        elif unit is not None and is_clamped(unit):
            bounds = [np.min(unit.bounds[0]), np.max(unit.bounds[1])]
        else:
            return x.format
        ends = np.asarray(bounds, np.float32)
        low, high = (int(code) for code in x.format.encode(ends, x.scale, x.zero))
        fitting = [f for f in integers_in(x.dtype) if f.qmin <= low and high <= f.qmax]
        return min(fitting, key=lambda f: f.bits)

    def operands(self, exprs: Any, out: Output) -> list[Operand]:
        """The arguments of a node. In floats, constants are as precise as what is beside them."""
        beside = [self.operand(x) for x in exprs if constant(x) is None]
        formats = [f for f in (out.format, *(t.format for t in beside)) if f.quantized]
        if not out.in_floats and any(t.bits > INT8.bits and t.zero for t in beside):
            raise NotInteger("an int16 tensor with a zero point")
        fitting = [f for f in formats if f.is_float == out.in_floats]
        held = max(fitting, key=lambda f: f.precision, default=E4M3 if out.in_floats else INT8)
        return [self.operand(x, held) for x in exprs]

    def accumulator(self, x: Operand) -> tuple[int, int, int]:
        """What products of x are summed in, as an operator holds it."""
        found = self._accumulators.of(x.dtype)
        return found.step, found.fraction_bits, found.promote

    def is_image(self, tensor: Any) -> bool:
        """Whether an NHWC form of the tensor is at hand."""
        return not isinstance(tensor, np.ndarray) and tensor in self.nhwc

    def images(self, tensor: Any) -> Any:
        """The NHWC form of an NCHW tensor."""
        if tensor not in self.nhwc:
            self.nhwc[tensor] = self.r.emit(relax.op.permute_dims(tensor, [0, 2, 3, 1]))
        return self.nhwc[tensor]

    def from_images(self, tensor: Any) -> Any:
        """The NCHW form of an NHWC result; the NHWC one is remembered."""
        tensor = tensor if isinstance(tensor, relax.Var) else self.r.emit(tensor)
        out = self.r.emit(relax.op.permute_dims(tensor, [0, 3, 1, 2]))
        self.nhwc[out] = tensor
        return out

    def keep(self, call: Any, tensor: Any) -> Any:
        """A data movement applied to a quantized tensor instead."""
        return self.r.emit(relax.Call(call.op, [tensor, *call.args[1:]], call.attrs, call.ty_args))

    def reshaped(self, tensor: Any, shape: tuple[int, ...]) -> Any:
        """A tensor in another shape; a 1x1 image needs no transpose for it."""
        if shape_of(tensor) == shape:
            return tensor
        if self.is_image(tensor) and shape_of(tensor)[2:] == (1, 1):
            tensor = self.nhwc[tensor]
        return self.r.emit(relax.op.reshape(tensor, shape))

    def call(
        self, op: Operator, tensors: list[Any], constants: tuple[np.ndarray, ...], shape: tuple[int, ...],
        dtype: str, origin: Origin | None = None,
    ) -> Any:  # fmt: skip
        """Emit one operator: activations (arrays where they are constant), constants, shape and dtype of the
        result, whose origin is a step on the way to what is lowered where none is given.

        Raises NotInteger for an operator that can't round as the device does.
        """
        op = self._rounded(op)
        arrays = [t if not isinstance(t, np.ndarray) else _const(t) for t in tensors]
        args = [*arrays, *map(_const, constants)]
        types = tuple(TensorType(shape_of(a), str(a.ty.dtype)) for a in args)
        out = TensorType(tuple(shape), dtype)
        key = (to_json(op), types, out)
        if key not in self._functions:
            self._functions[key] = self.r.add_function(op.primfunc(types, out), f"hwptq_{op.kind}")
        return self.r.emit(relax.call_tir(self._functions[key], args, relax.TensorType(shape, dtype)), origin)

    def _rounded(self, op: Operator) -> Operator:
        """The operator as the device rounds; all that requantize have a zero point of the result."""
        known = {f.name for f in fields(op)}
        if self._rounding == STEPS or not known & {"rounding", "out_zero_point"}:
            return op
        if "rounding" not in known:
            raise NotInteger(f"there is no {op.kind} that rounds {self._rounding}")
        return replace(op, rounding=self._rounding)  # type: ignore[call-arg]

    def binary(self, op: Operator, a: Operand, b: Operand, out: Output) -> Any:
        """An operator on two broadcast operands, in NHWC where one of them is an image in that layout."""
        shape = tuple(np.broadcast_shapes(a.shape, b.shape))
        images = any(self.is_image(t.tensor) for t in (a, b)) and len(a.shape) == len(b.shape) == 4
        if not images:
            return self.call(op, [a.tensor, b.tensor], (), shape, out.dtype, out.tensor)
        n, c, h, w = shape
        tensors = [self._nhwc(t) for t in (a, b)]
        return self.from_images(self.call(op, tensors, (), (n, h, w, c), out.dtype, out.image))

    def elementwise(self, op: Operator, x: Operand, constants: tuple[np.ndarray, ...], out: Output) -> Any:
        """An operator on each element of x, in NHWC where that form is at hand."""
        if not self.is_image(x.tensor):
            return self.call(op, [x.tensor], constants, x.shape, out.dtype, out.tensor)
        image = self.images(x.tensor)
        return self.from_images(self.call(op, [image], constants, shape_of(image), out.dtype, out.image))

    def _nhwc(self, t: Operand) -> Any:
        return t.tensor.transpose(0, 2, 3, 1) if t.is_constant else self.images(t.tensor)


def _const(array: np.ndarray) -> Any:
    return relax.const(np.asarray(array, order="C"))


def tensor_params(call: Any) -> tuple[float, int]:
    """Scale and zero point of a quantize or dequantize of an activation."""
    scale, zero = scale_and_zero(call)
    if scale is None or zero is None or scale.size != 1:
        raise ValueError("activations must be quantized per tensor with constant scale and zero point")
    return float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0])
