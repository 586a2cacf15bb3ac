"""LowerToInteger: Q(op(DQ …)) becomes one integer operator with exact semantics, in portable code.

Every operator is a call_tir of a plain PrimFunc that carries its description (hwptq/operators), so the
graph runs anywhere, and SelectKernels can find the operators again. Images become NHWC on the way.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.formats import INT8, Format, format_of, holds_floats
from hwptq.ir.dataflow import bindings, constant, main_functions, op_name, rewrite, shape_of, users
from hwptq.ir.operator import Operator, to_json
from hwptq.ir.qdq import dequantizes, quantizes, scale_and_zero
from hwptq.operators.clamp import Clamp
from hwptq.operators.dequantize import Dequantize, FloatDequantize
from hwptq.operators.quantize import FloatQuantize, Quantize
from hwptq.quant.float_sums import Accumulators
from hwptq.quant.qparams import activation_qparams
from hwptq.tir.kernel import TensorType

from .graph.quantizable import float_reasons, layer_dtypes, node_name, weight_groups, with_float_reasons
from .rules.fp8 import Fp8Output, is_layer, lower_fp8, reads_floats
from .rules.integer import Output, is_real_dense, lower_node
from .rules.operands import NotInteger, Operand


@tvm.transform.module_pass(opt_level=0, name="hwptq.LowerToInteger")
class LowerToInteger:
    """QDQ graph -> graph of operators on integers, e4m3 and bfloat16. What has no such form stays float.

    accumulators: what the device sums products of floats in.
    """

    def __init__(self, accumulators: Accumulators | None = None):
        self.accumulators = accumulators or Accumulators()

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        values = {v: value for _, f in main_functions(mod) for v, value in bindings(f)}
        state: dict[int, Emitter] = {}

        def visit(r: Any, var: Any, value: Any) -> Any:
            emitter = state.setdefault(id(r), Emitter(r, mod, values, self.accumulators))
            if quantizes(value) and scale_and_zero(value)[0] is not None:
                return emitter.quantize(var, value)
            if dequantizes(value) and constant(value.args[0]) is None:
                op = _dequantize(value)
                return emitter.call(op, [r.get(value.args[0])], (), shape_of(value), "float32", str(var.name))
            if is_real_dense(emitter, value) and not emitter.feeds_quantize(var):
                return emitter.real_dense(var, value)
            if emitter.leaves_as_float(var, value):
                return lower_fp8(emitter, var, emitter.fp8_output(1.0, str(var.name), "float32"))
            return r.keep(value)

        out = rewrite(mod, visit)
        reasons = {name: why for e in state.values() for name, why in e.reasons.items()}
        return with_float_reasons(out, reasons)


def _params(call: Any) -> tuple[float, int]:
    scale, zero = scale_and_zero(call)
    if scale is None or zero is None or scale.size != 1:
        raise ValueError("activations must be quantized per tensor with constant scale and zero point")
    return float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0])


def _dequantize(call: Any) -> Operator:
    scale, zero = _params(call)
    return FloatDequantize(scale) if holds_floats(str(call.args[0].ty.dtype)) else Dequantize(scale, zero)


def _quantized(real: np.ndarray, dtype: Format) -> Operand:
    """A float constant as an operand of its own range."""
    q = activation_qparams(float(real.min()), float(real.max()), dtype=dtype)
    tensor = dtype.encode(real, q.scale, q.zero_point)
    return Operand(tensor, np.asarray(q.scale, np.float32), q.zero_point, real.shape)


class Emitter:
    """Emits integer operators into a new function, keeping each image in NHWC beside its NCHW form."""

    def __init__(self, rewriter: Any, mod: Any, values: dict[Any, Any], accumulators: Accumulators):
        self.r, self.mod, self.values = rewriter, mod, values
        self.nhwc: dict[Any, Any] = {}  # NCHW expression -> the same tensor in NHWC
        self.reasons: dict[str, str] = {}  # node left in float -> why
        self._dtypes, self._groups = layer_dtypes(rewriter.func), weight_groups(rewriter.func)
        self._float = float_reasons(rewriter.func)
        self._functions: dict[Any, Any] = {}
        self._readers = users(rewriter.func)
        self._accumulators = accumulators

    def quantize(self, var: Any, value: Any) -> Any:
        """The integer node that yields quantize's result, or the quantize operator itself."""
        scale, zero = _params(value)
        name, dtype = node_name(str(var.name)), str(value.ty.dtype)
        in_floats = holds_floats(dtype)
        try:
            source = str(getattr(value.args[0], "name", ""))
            if source in self._float:
                raise NotInteger(self._float[source])
            if in_floats or reads_floats(self, value.args[0]):
                return lower_fp8(self, value.args[0], self.fp8_output(scale, name, dtype, zero))
            return lower_node(self, value.args[0], self._output(scale, zero, name, dtype))
        except NotInteger as error:
            if value.args[0] in self.values:  # else it quantizes an input of the graph
                self.reasons[str(value.args[0].name)] = str(error)
            if in_floats:
                op = FloatQuantize(float(np.float32(1 / scale)), dtype)
                source, shape = self.r.get(value.args[0]), shape_of(value)
                return self.call(op, [source], (), shape, dtype, str(var.name))
            return self._boundary(value.args[0], scale, zero, str(var.name), dtype)

    def _boundary(self, source: Any, scale: float, zero: int, name: str, dtype: str) -> Any:
        """Quantize a float tensor; what limits it to the range of an int4 becomes a clamp behind."""
        op, shape = Quantize(scale, zero, dtype), shape_of(source)
        clip: Any = self.values.get(source)
        if op_name(clip) != "clip":
            return self.call(op, [self.r.get(source)], (), shape, dtype, name)
        lo, hi = Output(scale, zero, name, held=dtype).bounds(*(float(a.value) for a in clip.args[1:3]))
        tensor = self.call(op, [self.r.get(clip.args[0])], (), shape, dtype, f"{name}_unclamped")
        limits = tuple(np.full(shape[-1], limit, dtype) for limit in (lo, hi))
        return self.call(Clamp(), [tensor], limits, shape, dtype, name)

    def fp8_output(self, scale: float, name: str, dtype: str, zero: int = 0) -> Fp8Output:
        """A result of the fp8 rules."""
        return Fp8Output(scale, name, self._accumulators, dtype, zero)

    def leaves_as_float(self, var: Any, value: Any) -> bool:
        """Whether `value` is an fp8 layer whose result is not quantized, nor joined by a quantized add."""
        if not is_layer(self, value):
            return False
        readers = self._readers.get(var, [])
        followers = [v for u in readers for v in [u, *self._readers.get(u, [])]]
        return not any(quantizes(self.values.get(v)) for v in followers)

    def feeds_quantize(self, var: Any) -> bool:
        """Whether a quantize reads `var`, perhaps behind the clip of an int4 tensor."""
        followers = {u: self.values.get(u) for u in self._readers.get(var, [])}
        return any(
            quantizes(v) or (op_name(v) == "clip" and self.feeds_quantize(u)) for u, v in followers.items()
        )

    def real_dense(self, var: Any, value: Any) -> Any:
        """A dense layer whose result is float32; the float operator where it has no integer form."""
        try:
            return lower_node(self, var, replace(self._output(1.0, 0, str(var.name)), real=True))
        except NotInteger as error:
            self.reasons[str(var.name)] = str(error)
            return self.r.keep(value)

    def _output(self, scale: float, zero: int, name: str, dtype: str = INT8.name) -> Output:
        activation, weight = (format_of(d) for d in self._dtypes.get(name, ("int8", "int8")))
        group = self._groups.get(name, 0)
        ends = (int(format_of(dtype).qmin), int(format_of(dtype).qmax))
        return Output(scale, zero, name, *ends, weight.bits, activation.bits, group, held=dtype)

    def operand(self, expr: Any, dtype: Format = INT8) -> Operand:
        """An argument as a quantized tensor, a constant in `dtype`. Raises NotInteger where it is none."""
        real = constant(expr)
        if real is not None:
            return _quantized(real, dtype)
        value: Any = self.values.get(expr)
        if not dequantizes(value):
            raise NotInteger("an input is not quantized")
        source = value.args[0]
        weight = constant(source)
        if weight is not None:
            scales, zeros = scale_and_zero(value)
            if zeros is not None and np.any(zeros):
                raise NotInteger("a weight with a zero point")
            return Operand(weight, np.asarray(scales), 0, shape_of(expr))
        scale, zero = _params(value)
        return Operand(self.r.get(source), np.asarray(scale, np.float32), zero, shape_of(expr))

    def is_image(self, tensor: Any) -> bool:
        """Whether an NHWC form of the tensor is at hand."""
        return not isinstance(tensor, np.ndarray) and tensor in self.nhwc

    def keep(self, call: Any, tensor: Any) -> Any:
        """A data movement applied to an int8 tensor instead."""
        return self.r.emit(relax.Call(call.op, [tensor, *call.args[1:]], call.attrs, call.ty_args))

    def reshaped(self, tensor: Any, shape: tuple[int, ...]) -> Any:
        """A tensor in another shape; a 1x1 image needs no transpose for it."""
        if shape_of(tensor) == shape:
            return tensor
        if self.is_image(tensor) and shape_of(tensor)[2:] == (1, 1):
            tensor = self.nhwc[tensor]
        return self.r.emit(relax.op.reshape(tensor, shape))

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

    def call(
        self, op: Any, tensors: list[Any], constants: tuple[np.ndarray, ...], shape: tuple[int, ...],
        dtype: str = "int8", name: str = "",
    ) -> Any:  # fmt: skip
        """Emit one operator: activations, constants, output shape and dtype."""
        args = [*tensors, *(relax.const(np.ascontiguousarray(c)) for c in constants)]
        types = tuple(TensorType(shape_of(a), str(a.ty.dtype)) for a in args)
        out = TensorType(tuple(shape), dtype)
        key = (to_json(op), types, out)
        if key not in self._functions:
            self._functions[key] = self.r.add_function(op.primfunc(types, out), f"hwptq_{op.kind}")
        return self.r.emit(relax.call_tir(self._functions[key], args, relax.TensorType(shape, dtype)), name)
