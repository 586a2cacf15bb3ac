"""Multiply-accumulates of the nodes of a float graph."""

from __future__ import annotations

from math import prod
from typing import Any

import tvm
from tvm import relax

from .dataflow import bindings, op_name, shape_of
from .real_operator import real_operator

_CONVOLUTIONS = ("nn.conv1d", "nn.conv2d", "nn.conv3d")
_TRANSPOSED = ("nn.conv1d_transpose", "nn.conv2d_transpose", "nn.conv3d_transpose")


def float_macs(mod: tvm.IRModule) -> int:
    """Multiply-accumulates of every convolution and matrix product of a float module."""
    return sum(node_macs(mod, value) for _, value in bindings(mod["main"]))


def node_macs(mod: tvm.IRModule, value: Any) -> int:
    """Multiply-accumulates of one node; those inside it for a call of an outlined function."""
    if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.GlobalVar):
        return sum(node_macs(mod, inner) for _, inner in bindings(mod[value.op]))
    name, real = op_name(value), real_operator(mod, value)
    if real is not None:
        return real.macs([shape_of(a) for a in value.args[1].fields], shape_of(value))
    if name in _CONVOLUTIONS:
        return prod(shape_of(value)) * prod(shape_of(value.args[1])[1:])
    if name in _TRANSPOSED:
        return prod(shape_of(value.args[0])) * prod(shape_of(value.args[1])[1:])
    return prod(shape_of(value)) * shape_of(value.args[0])[-1] if name == "matmul" else 0
