"""How many bytes a model's constants take on a device, from the functions that pack them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.quant import integer_ops as ops

from .dataflow import bindings, constant
from .quantizable import layer_name
from .select_kernels import integer_operator, kernel_steps


def layer_bytes(integer: tvm.IRModule, target: Any) -> dict[str, int]:
    """Bytes by layer of an integer graph: packed weights, bias, multipliers and shifts of each Conv2d and
    Dense, each tensor rounded up to the alignment of the device."""
    found = {}
    for var, value in bindings(integer["main"]):
        op = integer_operator(integer, value)
        if not isinstance(op, ops.Conv2d | ops.Dense):
            continue
        activation, *constants = value.args[1].fields
        steps = kernel_steps(op, [activation], constants, var, target)
        arrays = [a for step in steps for a in step.args if isinstance(a, np.ndarray)]
        found[layer_name(str(var.name))] = sum(_aligned(a.nbytes, target.memory.alignment) for a in arrays)
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
