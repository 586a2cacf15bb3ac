"""How many bytes a model's constants take on a device, from the functions that pack them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.ir.dataflow import bindings, constant
from hwptq.ir.provenance import origins
from hwptq.passes.graph.fused_groups import Group

from .select_kernels import integer_node, kernel_steps, layer_of


def layer_bytes(integer: tvm.IRModule, target: Any) -> dict[str, int]:
    """Bytes by node of an integer graph: packed weights, bias, multipliers and shifts, the bounds of a clamp
    behind; each tensor rounded up to the alignment of the device."""
    found: dict[str, int] = {}
    named = origins(integer["main"])
    for var, value in bindings(integer["main"]):
        node = integer_node(integer, var, value)
        if node is None or not node.constants or any(constant(c) is None for c in node.constants):
            continue
        steps = kernel_steps(layer_of(Group(node), {}), named[var].label, target)
        arrays = [a for step in steps for a in step.args if isinstance(a, np.ndarray)]
        size = sum(_aligned(a.nbytes, target.memory.alignment) for a in arrays)
        name = named[var].layer
        found[name] = found.get(name, 0) + size
    return found


def stored_bytes(kernels: tvm.IRModule, target: Any) -> int:
    """Bytes of all constants of a module of kernels, each rounded up to the alignment.

    The static program holds no more, and less where constants are equal: it stores them once.
    """
    arrays = [array for _, value in bindings(kernels["main"]) for array in _constants(value)]
    return sum(_aligned(array.nbytes, target.memory.alignment) for array in arrays)


def _constants(value: Any) -> list[np.ndarray]:
    if not isinstance(value, relax.Call):
        return []
    fields = [f for a in value.args for f in (a.fields if isinstance(a, relax.Tuple) else [a])]
    return [array for array in map(constant, fields) if array is not None]


def _aligned(nbytes: int, alignment: int) -> int:
    return -(-nbytes // alignment) * alignment
