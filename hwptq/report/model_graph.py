"""The graph of a compiled model as people read it: one node for each of the user's, and what it reads."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import tvm
from tvm import relax

from hwptq.formats import holds_codes
from hwptq.ir.dataflow import bindings, composite_name, constant, op_name, reads
from hwptq.ir.operator import integer_operator, kernel_name
from hwptq.ir.provenance import Origin, Part, origins
from hwptq.operators.dequantize import Dequantize, FloatDequantize
from hwptq.operators.quantize import FloatQuantize, Quantize
from hwptq.tir.builder import TEMPLATE

_BOUNDARY = (Quantize, Dequantize, FloatQuantize, FloatDequantize)


@dataclass(frozen=True)
class Node:
    """A node of the integer graph. name: its label (ir/provenance.py); node: as the user's file calls it;
    dtype: of its result; inputs: the names of those that it reads; quantized: whether it computes codes."""

    name: str
    node: str
    operator: str
    dtype: str
    inputs: tuple[str, ...]
    quantized: bool

    def row(self) -> dict[str, Any]:
        """The node in the list `graph` of the report."""
        return asdict(self) | {"inputs": list(self.inputs)}


def model_graph(integer: tvm.IRModule, steps: Container[str] = ()) -> list[Node]:
    """The nodes of an integer graph in its order. Steps on the way to a node, but for those of the labels
    `steps`, and what turns codes into reals belong to the nodes around them."""
    func = integer["main"]
    named = origins(func)
    stands_for: dict[Any, tuple[str, ...]] = {p: (named[p].label,) for p in func.params}
    found = {named[p].label: _input(named[p], p) for p in func.params}
    for var, value in bindings(func):
        sources = tuple(dict.fromkeys(name for read in reads(value) for name in stands_for.get(read, ())))
        origin = named[var]
        if origin.label in found:  # another part of the same, as its codes
            stands_for[var] = (origin.label,)
        elif not isinstance(value, relax.Call) or _within(origin, steps) or origin.part is Part.PACKED:
            stands_for[var] = sources
        else:
            op = integer_operator(integer, value)
            dtype = str(getattr(var.ty, "dtype", ""))
            quantized = holds_codes(dtype) or (op is not None and not isinstance(op, _BOUNDARY))
            operator = op.family if op is not None else _float_operator(integer, value)
            found[origin.label] = Node(origin.label, origin.node, operator, dtype, sources, quantized)
            stands_for[var] = (origin.label,)
    return [node for node in found.values() if node.inputs or node.operator == "input"]


def _within(origin: Origin, steps: Container[str]) -> bool:
    """Whether it is a step that is no node of its own."""
    return bool(origin.step) and origin.label not in steps


def _input(origin: Any, param: Any) -> Node:
    return Node(origin.label, origin.node, "input", str(getattr(param.ty, "dtype", "")), (), False)


def _float_operator(mod: tvm.IRModule, value: Any) -> str:
    if isinstance(value.op, tvm.ir.GlobalVar):
        return str(composite_name(mod[value.op])).removeprefix("hwptq.")
    return op_name(value)


#: What a layer's own kernel gives, where another one scales or clamps it.
_SUMS = (Part.SUMS, Part.UNCLAMPED)


@dataclass(frozen=True)
class Kernel:
    """What computes a layer. template: of hwptq/kernels/, or "portable"; function: its name in the object;
    constant_bytes, output_bytes: as they are stored.
    """

    template: str
    function: str
    constant_bytes: int
    output_bytes: int


def kernels_of(kernels: tvm.IRModule, steps: Container[str] = ()) -> dict[str, Kernel]:
    """The kernel of each label, of a module that SelectKernels made, of each tensor that it makes whole; of
    steps those of the labels `steps`."""
    named, found, sums = origins(kernels["main"]), {}, set()
    for var, value in bindings(kernels["main"]):
        if op_name(value) != "call_tir":
            continue
        attributes = kernels[value.args[0]].attrs or {}
        constants = sum(_nbytes(a) for a in value.args[1].fields if constant(a) is not None)
        origin, written = named[var], sum(_nbytes(t) for t in _tensors(var))
        template = str(attributes.get(TEMPLATE, "portable"))
        kernel = Kernel(template, kernel_name(value), constants, written)
        if _within(origin, steps) or (origin.part is Part.REAL and origin.label in found):
            continue
        if origin.part in _SUMS:
            sums.add(origin.label)
        elif origin.label in sums:
            continue
        found[origin.label] = kernel
    return found


def _tensors(var: Any) -> list[Any]:
    """What a var holds: itself, or what is in its tuple."""
    return list(getattr(var.ty, "fields", [var.ty]))


def _nbytes(tensor: Any) -> int:
    """Bytes of a tensor, or of a type."""
    kind = getattr(tensor, "ty", tensor)
    dtype = tvm.DataType(str(kind.dtype))
    return prod(int(d) for d in kind.shape.values) * dtype.bits * dtype.lanes // 8
