"""LowerToInteger: Q(op(DQ …)) becomes one operator with exact semantics, in portable code.

Every operator is a call_tir of a plain PrimFunc that carries its description (hwptq/operators), so the graph
runs anywhere, and SelectKernels can find the operators again. Images become NHWC on the way.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import tvm

from hwptq.formats import FLOAT32, Format, format_of, holds_floats
from hwptq.ir.composite import read_composite
from hwptq.ir.dataflow import (
    Rewriter,
    bindings,
    constant,
    main_functions,
    op_name,
    rewrite,
    shape_of,
    users,
)
from hwptq.ir.operator import Operator
from hwptq.ir.provenance import Origin, Part, origins
from hwptq.ir.qdq import dequantizes, quantizes, scale_and_zero
from hwptq.lowering.elementwise import elementwise_root
from hwptq.lowering.emitter import Emitter, tensor_params
from hwptq.lowering.operand import NotInteger
from hwptq.lowering.output import Output
from hwptq.lowering.rules import lower_node
from hwptq.lowering.sources import is_float_layer, is_real_dense, reads_floats
from hwptq.operators.clamp import Clamp
from hwptq.operators.dequantize import Dequantize, FloatDequantize
from hwptq.operators.group_dense import lower_table
from hwptq.operators.lookup import lower_function
from hwptq.operators.quantize import FloatQuantize, Quantize
from hwptq.operators.rescale import rescaled
from hwptq.operators.rows import lower_dense, row_codes
from hwptq.targets.schema import Descriptor

from .graph.quantizable import float_reasons, layer_dtypes, weight_groups, with_float_reasons


@tvm.transform.module_pass(opt_level=0, name="hwptq.LowerToInteger")
class LowerToInteger:
    """QDQ graph -> graph of operators on integers and short floats. What has no such form stays float.

    target: its descriptor says what the device sums products of floats in.
    """

    def __init__(self, target: Descriptor):
        self.target = target

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        _check_weights(mod)
        state: dict[int, _Lowering] = {}

        def visit(r: Rewriter, var: Any, value: Any) -> Any:
            if id(r) not in state:
                values, numerics = dict(bindings(r.func)), self.target.numerics
                emitter = Emitter(r, values, self.target.accumulators, numerics.rounding, numerics.grid)
                state[id(r)] = _Lowering(r, emitter)
            return state[id(r)].visit(var, value)

        out = rewrite(mod, visit)
        reasons = {lowering.r.name: lowering.reasons for lowering in state.values()}
        return with_float_reasons(out, reasons)


def _check_weights(mod: tvm.IRModule) -> None:
    """Raise ValueError for a layer whose quantized weights another pass has turned back."""
    for _, func in main_functions(mod):
        dtypes, named = layer_dtypes(func), origins(func)
        for var, value in bindings(func):
            label = named[var].label
            is_layer = label in dtypes and named[var].part is Part.RESULT
            weight = constant(value.args[1]) if is_layer else None
            if weight is not None and weight.dtype == np.float32:
                raise ValueError(
                    f"{label}: its quantized weights are in float again; no FoldConstant may stand "
                    "between InsertQDQ and LowerToInteger"
                )


class _Lowering:
    """Lowers one function. Attribute reasons: label of a node left in float -> why."""

    def __init__(self, rewriter: Rewriter, emitter: Emitter):
        self.r, self.e, self.values = rewriter, emitter, emitter.values
        self.reasons: dict[str, str] = {}
        func = rewriter.func
        self._dtypes, self._groups = layer_dtypes(func), weight_groups(func)
        self._float = float_reasons(func)
        self._readers = users(func)

    def visit(self, var: Any, value: Any) -> Any:
        """The new expression of a binding."""
        e = self.e
        if quantizes(value) and scale_and_zero(value)[0] is not None:
            return self._quantize(value)
        if dequantizes(value) and constant(value.args[0]) is None:
            source = self.r.get(value.args[0])
            return e.call(_dequantize(value), [source], (), shape_of(value), "float32", self.r.origin)
        looked_up = lower_table(e, value, self.r.origin)
        if looked_up is not None:
            return looked_up
        if self._reads_rows(value):
            return self._row_dense(var, value)
        if is_real_dense(e.mod, self.values, value) and not self._feeds_quantize(var):
            return self._real_dense(var, value)
        if self._leaves_as_float(var, value):
            return self._lowered(var, Output(self.r.origin, format=FLOAT32, in_floats=True))
        return self.r.keep(value)

    def _lowered(self, expr: Any, out: Output) -> Any:
        """Emit the operators whose result is quantize(expr), or `expr` itself for an output in float32.

        Raises NotInteger with the reason where there is no exact form.
        """
        value: Any = self.values.get(expr)
        if dequantizes(value):
            return rescaled(self.e, self.e.operand(expr), out)
        while not out.in_floats and op_name(value) == "clip":
            if dequantizes(self.values.get(value.args[0])):
                break
            limits = out.code_bounds(*(float(a.value) for a in value.args[1:3]))
            expr, out = value.args[0], replace(out, limits=limits)
            value = self.values.get(expr)
        root = elementwise_root(expr, self.values)
        if root is not expr and dequantizes(self.values.get(root)):
            return lower_function(self.e, expr, root, out)
        return lower_node(self.e, value, out)

    def _quantize(self, value: Any) -> Any:
        """The node that yields quantize's result, or the quantize operator itself."""
        (scale, zero), stored = tensor_params(value), format_of(str(value.ty.dtype))
        source = value.args[0]
        origin = self.r.origins.get(source, self.r.origin).with_part(Part.RESULT)
        out = self._output(origin, scale, zero, stored, source)
        try:
            why_not = self._float.get(origin.label)
            if why_not is not None:
                raise NotInteger(why_not)
            return self._lowered(source, out)
        except NotInteger as error:
            if self._made(source):  # else it quantizes an input of the graph
                self.reasons[origin.label] = str(error)
            if stored.is_float:
                op = FloatQuantize(float(np.float32(1 / scale)), out.dtype)
                return self.e.call(op, [self.r.get(source)], (), shape_of(value), out.dtype, out.tensor)
            return self._boundary(source, out)

    def _made(self, tensor: Any) -> bool:
        """Whether a node makes a tensor, which may be clipped to the steps of its format."""
        value: Any = self.values.get(tensor)
        return (value.args[0] if op_name(value) == "clip" else tensor) in self.values

    def _boundary(self, source: Any, out: Output) -> Any:
        """Quantize a float tensor; what limits it to the range of an int4 becomes a clamp behind."""
        op, shape, e = Quantize(out.scale, out.zero, out.dtype), shape_of(source), self.e
        clip: Any = self.values.get(source)
        if op_name(clip) != "clip":
            return e.call(op, [self.r.get(source)], (), shape, out.dtype, out.tensor)
        lo, hi = out.code_bounds(*(float(a.value) for a in clip.args[1:3]))
        unclamped = out.origin.with_part(Part.UNCLAMPED)
        tensor = e.call(op, [self.r.get(clip.args[0])], (), shape, out.dtype, unclamped)
        limits = tuple(np.full(shape[-1], limit, out.dtype) for limit in (lo, hi))
        return e.call(Clamp(), [tensor], limits, shape, out.dtype, out.tensor)

    def _real_dense(self, var: Any, value: Any) -> Any:
        """A dense layer whose result is float32; the float operator where it has no integer form."""
        try:
            return self._lowered(var, self._integer_output(self.r.origin, 1.0, 0, FLOAT32))
        except NotInteger as error:
            self.reasons[self.r.origin.label] = str(error)
            return self.r.keep(value)

    def _reads_rows(self, value: Any) -> bool:
        unit = read_composite(self.e.mod, value)
        return unit is not None and unit.kind == "matmul" and row_codes(self.e, unit.args[0]) is not None

    def _row_dense(self, var: Any, value: Any) -> Any:
        """A dense layer on rows with a scale each; the float operator where it has no integer form."""
        unit = read_composite(self.e.mod, value)
        assert unit is not None
        try:
            return lower_dense(self.e, unit, self.r.origin)
        except NotInteger as error:
            self.reasons[self.r.origin.label] = str(error)
            return self.r.keep(value)

    def _leaves_as_float(self, var: Any, value: Any) -> bool:
        """Whether `value` is a layer on floats whose result is neither quantized nor in a quantized add."""
        if not is_float_layer(self.e.mod, self.values, value):
            return False
        readers = self._readers.get(var, [])
        followers = [v for u in readers for v in [u, *self._readers.get(u, [])]]
        return not any(quantizes(self.values.get(v)) for v in followers)

    def _feeds_quantize(self, var: Any) -> bool:
        """Whether a quantize reads `var`, perhaps behind the clip of an int4 tensor."""
        waiting = [var]
        while waiting:
            followers = {u: self.values.get(u) for u in self._readers.get(waiting.pop(), [])}
            if any(map(quantizes, followers.values())):
                return True
            waiting += [u for u, v in followers.items() if op_name(v) == "clip"]
        return False

    def _output(self, origin: Origin, scale: float, zero: int, stored: Format, source: Any) -> Output:
        if stored.is_float or reads_floats(self.e.mod, self.values, source):
            return Output(origin, scale, zero, stored, in_floats=True)
        return self._integer_output(origin, scale, zero, stored)

    def _integer_output(self, origin: Origin, scale: float, zero: int, stored: Format) -> Output:
        activation, weight = (format_of(d) for d in self._dtypes.get(origin.label, ("int8", "int8")))
        group = self._groups.get(origin.label, 0)
        return Output(
            origin, scale, zero, stored, weight_bits=weight.bits, activation_bits=activation.bits,
            weight_group=group, bias_bits=self.e.grid.bias_bits,
        )  # fmt: skip


def _dequantize(call: Any) -> Operator:
    scale, zero = tensor_params(call)
    return FloatDequantize(scale) if holds_floats(str(call.args[0].ty.dtype)) else Dequantize(scale, zero)
