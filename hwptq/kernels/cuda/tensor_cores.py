"""Which layers tensor cores take."""

from __future__ import annotations

from typing import TypeGuard

from hwptq.ir.operator import Operator
from hwptq.kernels.layer import Layer
from hwptq.operators.conv2d import FloatConv2d
from hwptq.operators.dense import FloatDense
from hwptq.operators.layers import IntegerLayer, LayerToFloat
from hwptq.operators.matmul import FloatMatMul

_INT8_PRODUCTS = IntegerLayer | LayerToFloat


def summed_by_step(op: Operator) -> TypeGuard[FloatConv2d | FloatDense | FloatMatMul]:
    """Whether products of floats are summed several at once, as only tensor cores do."""
    return isinstance(op, FloatConv2d | FloatDense | FloatMatMul) and not op.in_order


def in_integers(layer: Layer) -> bool:
    """Whether a layer multiplies int8 by constants, in one group."""
    op = layer.op
    return isinstance(op, _INT8_PRODUCTS) and not op.grouped and len(layer.constants) > 0
