"""What of a model computes in integers: multiply-accumulates, nodes, bits and bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.formats import format_of, holds_codes
from hwptq.ir.dataflow import bindings, composite_name, constant, op_name, reads, shape_of
from hwptq.ir.macs import float_macs, node_macs
from hwptq.ir.movement import SAME_ORDER
from hwptq.ir.operator import Operator, WeightedOperator, integer_operator
from hwptq.ir.provenance import origins
from hwptq.ir.qdq import dequantizes, quantizes
from hwptq.ir.real_operator import real_operator
from hwptq.operators.dequantize import Dequantize, FloatDequantize
from hwptq.operators.group_dense import GroupDense
from hwptq.operators.quantize import FloatQuantize, Quantize
from hwptq.passes.graph.quantizable import float_reasons
from hwptq.tir.builder import ELEMENT_BY_ELEMENT

_BOUNDARY = (Quantize, Dequantize, FloatQuantize, FloatDequantize)


def integer_macs(op: Operator, args: list[Any], out: Any) -> int:
    """Multiply-accumulates of one integer operator."""
    return op.macs([shape_of(a) for a in args], shape_of(out))


def integer_nodes(mod: tvm.IRModule) -> Iterator[tuple[Any, Operator, list[Any]]]:
    """(var, operator, arguments) of every integer operator of an integer graph."""
    for var, value in bindings(mod["main"]):
        op = integer_operator(mod, value)
        if op is not None:
            yield var, op, list(value.args[1].fields)


def bits(mod: tvm.IRModule) -> list[dict[str, Any]]:
    """One row for each operator with weights, and for products of two activations."""
    named = origins(mod["main"])
    nodes = (
        (named[var].layer, op, args, integer_macs(op, args, var)) for var, op, args in integer_nodes(mod)
    )
    return [_row(*node) for node in nodes if node[-1]]


def _row(name: str, op: Operator, args: list[Any], macs: int) -> dict[str, Any]:
    """Values of fewer bits than the dtype that holds them are known to their operator."""
    if isinstance(op, GroupDense):
        arrays = [a for a in map(constant, args[1:]) if a is not None]
        activation, size = _format_name(args[0], 0), sum(a.nbytes for a in arrays)
        return _columns(name, op, (op.weight, activation), macs, size)
    weighted = isinstance(op, WeightedOperator)
    factor = args[op.activations if weighted else 1]
    weight = constant(factor) if weighted else None
    width = getattr(op, "weight_bits", format_of(str(factor.ty.dtype)).bits)
    held = _format_name(factor, width)
    size = 0 if weight is None else format_of(held).packed_bytes(weight.size) + _factors(op, weight)
    activation = _format_name(args[0], getattr(op, "activation_bits", 0))
    return _columns(name, op, (held, activation), macs, size)


def _columns(name: str, op: Operator, dtypes: tuple[str, str], macs: int, size: int) -> dict[str, Any]:
    weight, activation = dtypes
    return {
        "name": name,
        "op": op.family,
        "weight": weight,
        "activation": activation,
        "macs": macs,
        "weight_bytes": size,
    }


def _format_name(tensor: Any, bits: int) -> str:
    """The format of a tensor, of so many bits if it is one of integers; 0 = those of its dtype."""
    dtype = str(tensor.ty.dtype)
    return f"int{bits}" if bits and not format_of(dtype).is_float else dtype


def _factors(op: Any, weight: Any) -> int:
    """Factors of groups of weights, a byte each."""
    size = getattr(op, "weight_group", 0)
    return weight.size // weight.shape[-1] * -(-weight.shape[-1] // size) if size else 0


def scalar_nodes(kernels: tvm.IRModule) -> list[dict[str, str]]:
    """What the device computes one element at a time between Quantize and Dequantize, and these themselves.

    Among it is data movement that no kernel does, such as a transpose, under the name of what is moved.
    """
    rows, named = [], origins(kernels["main"])
    for var, value in bindings(kernels["main"]):
        if not isinstance(value, relax.Call):
            continue
        op = integer_operator(kernels, value)
        if op is not None and ELEMENT_BY_ELEMENT in kernels[value.args[0]].attrs:
            rows.append({"name": named[var].label, "op": op.kind})
        moves = isinstance(value.op, tvm.ir.Op) and op_name(value) not in ("call_tir", *SAME_ORDER)
        if moves and holds_codes(str(getattr(var.ty, "dtype", ""))):
            rows.append({"name": named[next(iter(reads(value)), var)].label, "op": op_name(value)})
    return rows


def coverage(float_graph: tvm.IRModule, integer_graph: tvm.IRModule) -> dict[str, Any]:
    """The `coverage` object of the report."""
    nodes = list(integer_nodes(integer_graph))
    return {
        "macs_total": float_macs(float_graph),
        "macs_quantized": _quantized_macs(float_graph, integer_graph),
        "nodes_quantized": sum(not isinstance(op, _BOUNDARY) and not op.in_float for _, op, _ in nodes),
        "nodes_float": float_nodes(integer_graph),
    }


def _quantized_macs(float_graph: tvm.IRModule, integer_graph: tvm.IRModule) -> int:
    """Of each layer no more than it has in float: it may read channels twice."""
    named = origins(float_graph["main"])
    whole: dict[str, int] = {}
    for var, value in bindings(float_graph["main"]):
        label = named[var].layer
        whole[label] = whole.get(label, 0) + node_macs(float_graph, value)
    named, found = origins(integer_graph["main"]), dict[str, int]()
    for var, op, args in integer_nodes(integer_graph):
        label = named[var].layer
        found[label] = found.get(label, 0) + integer_macs(op, args, var)
    return sum(min(macs, whole.get(label) or macs) for label, macs in found.items())


def float_nodes(mod: tvm.IRModule) -> list[dict[str, str]]:
    """What is left in float in an integer graph, with the reason."""
    func = mod["main"]
    reasons, named = float_reasons(func), origins(func)
    rows = []
    for var, value in bindings(func):
        operator = integer_operator(mod, value)
        if not isinstance(value, relax.Call) or (operator is not None and not operator.in_float):
            continue
        tensors = [var, *reads(value)]
        if operator is None and any(holds_codes(str(getattr(t.ty, "dtype", ""))) for t in tensors):
            continue  # data movement of integers
        if not any(str(getattr(t.ty, "dtype", "")).startswith("float") for t in tensors):
            continue  # arithmetic of indices and masks
        real = operator or real_operator(mod, value)
        name, op = named[var].label, real.kind if real else op_name(value)
        if isinstance(value.op, tvm.ir.GlobalVar):
            op = str(composite_name(mod[value.op])).removeprefix("hwptq.")
        rows.append({"name": name, "op": op, "reason": reasons.get(name, f"{op} has no integer form")})
    return rows


def float_weight_bytes(mod: tvm.IRModule) -> int:
    """Bytes of the constants of a float or QDQ module, each value in float32."""
    total = 0
    for func in mod.functions.values():
        if isinstance(func, relax.Function):
            calls = [value for _, value in bindings(func) if isinstance(value, relax.Call)]
            total += sum(_float_bytes(call) for call in calls)
    return total


def _float_bytes(call: Any) -> int:
    """Bytes in float32 of the constants that a call reads, scales and zero points aside."""
    if quantizes(call) or dequantizes(call):
        weight = constant(call.args[0])
        return 0 if weight is None else 4 * weight.size
    arrays = [constant(a) for a in call.args]
    return sum(a.nbytes for a in arrays if a is not None and a.dtype == np.float32)
