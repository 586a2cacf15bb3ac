"""NormalizeQDQ: a QDQ graph made by another tool, in the form that LowerToInteger takes."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.formats import INT4, INT8, INT16, UINT8, format_of
from hwptq.ir.dataflow import bindings, constant, main_functions, op_name, rewrite, shape_of, users
from hwptq.ir.movement import order_of_axes
from hwptq.ir.provenance import Part
from hwptq.lowering.rules import rule_of

from .graph.moved_before_codes import moved_before_codes
from .graph.quantizable import WEIGHTED_HEADS, with_layer_dtypes

#: The format that takes the place of another one.
_FORMS = {INT8.name: INT8, UINT8.name: INT8, INT16.name: INT16}


def is_quantized(mod: tvm.IRModule) -> bool:
    """Whether a module already has quantized activations."""
    return any(op_name(value) == "quantize" for _, f in main_functions(mod) for _, value in bindings(f))


@tvm.transform.module_pass(opt_level=0, name="hwptq.NormalizeQDQ")
class NormalizeQDQ:
    """The same values in our form; the outputs stay the same. Stands before FuseConvRelu.

    1. uint8 becomes int8, with a zero point 128 lower.
    2. A quantized weight that is transposed or gets a height is so before it is dequantized.
    3. Data movement, max pooling and nearest-neighbour resizing of a quantized tensor give a quantized tensor
       of the same scale. What is quantized behind such steps only is quantized before them too.
    4. quantize and dequantize are parts of what they quantize (ir/provenance.py).
    5. A layer whose weights all fit int4 is noted as such a layer.
    """

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        dtypes: dict[str, dict[str, tuple[str, str]]] = {}
        unquantized = _unquantized(mod)
        moved = {v: q for _, f in main_functions(mod) for v, q in moved_before_codes(mod, f, _ties).items()}

        def visit(r: Any, var: Any, value: Any) -> Any:
            name = op_name(value)
            if name == "builtin.stop_lift_params":
                return value.args[0]
            if name in ("quantize", "dequantize"):
                return _boundary(r, value)
            if name == "permute_dims" and _weight(r, value.args[0]) is not None:
                return _transposed(r, value)
            if name == "reshape" and (reshaped := _reshaped(r, value)) is not None:
                return reshaped
            if var in unquantized and _ties(r.mod, value) and _scale_of(r, value.args[0]) is not None:
                return _tied(r, value)
            if name in WEIGHTED_HEADS:
                weight = _weight(r, value.args[1])
                if weight is not None and INT4.qmin <= weight.min() and weight.max() <= INT4.qmax:
                    dtypes.setdefault(r.name, {})[r.origin.label] = (INT8.name, INT4.name)
            return _coded(r, r.keep(value), moved[var]) if var in moved else r.keep(value)

        return with_layer_dtypes(rewrite(mod, visit), dtypes)


def _ties(mod: tvm.IRModule, value: Any) -> bool:
    """Whether the output of an operator holds values of its one input only."""
    rule = rule_of(mod, value)
    return (
        rule is not None
        and rule.selects(value)
        and not rule.why_not(value)
        and isinstance(value.args[0], relax.Var)
    )


def _boundary(r: Any, call: Any) -> Any:
    """quantize or dequantize between float and integers with a sign."""
    source, (scale, zero) = call.args[0], (constant(a) for a in call.args[1:3])
    given = r.get(source)
    if op_name(call) == "quantize":
        dtype = str(call.attrs.out_dtype)
        origin = r.origins.get(source, r.origin).with_part(Part.CODES)
    else:
        dtype = str(source.ty.dtype)
        codes = isinstance(given, relax.Var)
        origin = r.emitted.get(given, r.origin).with_part(Part.REAL) if codes else r.origin
    if scale is None or zero is None or dtype not in _FORMS:
        return r.keep(call)
    form, raw = _FORMS[dtype], constant(given)
    shift = int(format_of(dtype).qmin - form.qmin)
    if raw is not None:
        given = relax.const((raw.astype(np.int32) - shift).astype(form.held))
    params = (relax.const(scale), relax.const((zero.astype(np.int32) - shift).astype(form.zero_dtype)))
    axis = int(call.attrs.axis) if scale.size > 1 else -1
    if op_name(call) == "quantize":
        return r.emit(relax.op.quantize(given, *params, axis=axis, out_dtype=form.held), origin)
    return r.emit(relax.op.dequantize(given, *params, axis=axis, out_dtype="float32"), origin)


def _coded(r: Any, expr: Any, quantize: Any) -> Any:
    """DQ(Q(expr)) as a quantize of the old function has it."""
    given, origin = r.emit(expr, r.origin), r.origin
    scale, zero = (constant(a) for a in quantize.args[1:3])
    dtype = str(quantize.attrs.out_dtype)
    if dtype not in _FORMS or scale is None or zero is None:
        return given
    form = _FORMS[dtype]
    shift = int(format_of(dtype).qmin - form.qmin)
    params = relax.const(scale), relax.const((zero.astype(np.int32) - shift).astype(form.zero_dtype))
    codes = r.emit(
        relax.op.quantize(given, *params, axis=-1, out_dtype=form.held), origin.with_part(Part.CODES)
    )
    return r.emit(
        relax.op.dequantize(codes, *params, axis=-1, out_dtype="float32"), origin.with_part(Part.REAL)
    )


def _definition(r: Any, expr: Any) -> Any:
    """The new binding of an old expression, or None."""
    new = r.get(expr)
    return r.builder.lookup_binding(new) if isinstance(new, relax.Var) and new not in r.func.params else None


def _weight(r: Any, expr: Any) -> np.ndarray | None:
    """The int8 values of a constant that is dequantized, or None."""
    value = _definition(r, expr)
    return constant(value.args[0]) if op_name(value) == "dequantize" else None


def _scale_of(r: Any, expr: Any) -> tuple[Any, Any] | None:
    """(scale, zero point) of an activation quantized per tensor, or None."""
    value = _definition(r, expr)
    if op_name(value) != "dequantize" or constant(value.args[0]) is not None:
        return None
    return (value.args[1], value.args[2]) if shape_of(value.args[1]) == () else None


def _unquantized(mod: tvm.IRModule) -> set[Any]:
    """The vars that something else than a quantize reads."""
    found = set()
    for _, func in main_functions(mod):
        values = dict(bindings(func))
        for var, readers in users(func).items():
            if any(op_name(values.get(u)) != "quantize" for u in readers):
                found.add(var)
    return found


def _transposed(r: Any, call: Any) -> Any:
    """DQ(w^T) for (DQ w)^T."""
    value: Any = _definition(r, call.args[0])
    weight = constant(value.args[0])
    assert weight is not None
    order = order_of_axes(call)
    axis = order.index(int(value.attrs.axis) % weight.ndim) if shape_of(value.args[1]) else -1
    turned = relax.const(np.ascontiguousarray(weight.transpose(order)))
    return relax.op.dequantize(turned, value.args[1], value.args[2], axis=axis, out_dtype="float32")


def _reshaped(r: Any, call: Any) -> Any:
    """DQ(reshape w) for reshape(DQ w); None where an axis of scales does not come through whole."""
    value: Any = _definition(r, call.args[0])
    weight, shape = _weight(r, call.args[0]), shape_of(call)
    if weight is None:
        return None
    axis = -1
    if shape_of(value.args[1]):
        old = int(value.attrs.axis) % weight.ndim
        ends = [i for i in range(len(shape)) if prod(shape[:i]) == prod(weight.shape[:old])]
        axis = next((i for i in ends if shape[i] == weight.shape[old]), -1)
        if axis < 0:
            return None
    turned = relax.const(weight.reshape(shape))
    return relax.op.dequantize(turned, value.args[1], value.args[2], axis=axis, out_dtype="float32")


def _tied(r: Any, call: Any) -> Any:
    """DQ(Q(call)) in the scale of its input, which holds every value of the output."""
    params: Any = _scale_of(r, call.args[0])
    source: Any = _definition(r, call.args[0])
    held = str(source.args[0].ty.dtype)
    moved = r.emit(r.keep(call), r.origin)
    codes, real = r.origin.with_part(Part.CODES), r.origin.with_part(Part.REAL)
    ints = r.emit(relax.op.quantize(moved, *params, axis=-1, out_dtype=held), codes)
    return r.emit(relax.op.dequantize(ints, *params, axis=-1, out_dtype="float32"), real)
