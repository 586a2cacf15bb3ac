"""One PrimFunc for every integer operator, on any LLVM target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import tvm

from hwptq.quant import integer_ops as ops
from hwptq.quant.fp8_ops import Fp8Op
from hwptq.tir.builder import ELEMENT_BY_ELEMENT, TEMPLATE, primfunc
from hwptq.tir.kernel import TensorType
from hwptq.tir.layout import PLAIN
from hwptq.tir.lookup import emit_lookup, one_by_one
from hwptq.tir.vector_unit import SCALAR, VectorUnit

from .callback import callback
from .elementwise import (
    emit_binary,
    emit_clamp,
    emit_dequantize,
    emit_pad,
    emit_quantize,
)
from .images import emit_avg_pool, emit_conv2d, emit_dense, emit_matmul, emit_max_pool
from .resize import emit_resize


def portable(
    op: ops.GraphOp, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit = SCALAR
) -> tvm.tirx.PrimFunc:
    """The PrimFunc (inputs…, out) of `op`; `inputs` are all its tensors in the order of its docstring.

    It carries the operator as the attribute integer_ops.ATTRIBUTE if its result is plain. `unit` makes the
    vectors explicit. Raises ValueError for shapes that the operator does not take.
    """
    if isinstance(op, Fp8Op):
        return callback(op, inputs, out)
    attributes = {TEMPLATE: "portable"}
    if out.layout == PLAIN:
        attributes[ops.ATTRIBUTE] = ops.to_json(op)
    if _element_by_element(op, unit):
        attributes[ELEMENT_BY_ELEMENT] = "yes"
    return primfunc([*inputs, out], attributes, _emitter(op, inputs, out, unit))


def _element_by_element(op: ops.IntegerOp, unit: VectorUnit) -> bool:
    if isinstance(op, ops.Quantize | ops.Dequantize):
        return unit.float_lanes == 1
    return unit.lanes == 1 or isinstance(op, ops.LayerOp | ops.Lookup)


def _emitter(
    op: ops.IntegerOp, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
) -> Callable[..., None]:
    match op:
        case ops.Conv2d():
            return emit_conv2d(op, inputs, out)
        case ops.Dense() | ops.DenseFloat():
            return emit_dense(op, inputs, out)
        case ops.MatMul():
            return emit_matmul(op, inputs, out, unit)
        case ops.Add() | ops.Mul():
            return emit_binary(op, inputs, out, unit)
        case ops.Clamp():
            return emit_clamp(out, unit)
        case ops.Lookup():
            single = replace(unit, lanes=1, masked=False)
            return emit_lookup(inputs[0], out, single, one_by_one(inputs[0], out), lanes=1)
        case ops.MaxPool():
            return emit_max_pool(op, inputs[0], out, unit)
        case ops.AvgPool():
            return emit_avg_pool(op, inputs[0], out, unit)
        case ops.Resize():
            return emit_resize(inputs[0], out, unit)
        case ops.Pad():
            return emit_pad(op, inputs[0], out, unit)
        case ops.Quantize():
            return emit_quantize(op, unit)
        case ops.Dequantize():
            return emit_dequantize(op, unit)
    raise ValueError(f"no portable kernel for {op!r}")
