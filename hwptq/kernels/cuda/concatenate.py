"""Concatenation on a GPU: every element looks up which input it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import tvm
from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import Expr, Flat
from hwptq.tir.kernel import TensorType

from .flat import flat_kernel


def concatenation(
    inputs: Sequence[TensorType], axis: int, out: TensorType, attributes: dict[str, Any]
) -> tvm.tirx.PrimFunc:
    """(inputs…, out) joined along `axis`."""
    sizes = [prod(t.shape[axis:]) for t in inputs]
    pitch = sum(sizes)

    def element(at: Expr, *tensors: Flat) -> Expr:
        row, within = T.floordiv(at, pitch), T.floormod(at, pitch)
        first = pitch - sizes[-1]
        found = tensors[-1].load(row * sizes[-1] + (within - first))
        for tensor, size in zip(tensors[-2::-1], sizes[-2::-1], strict=True):
            first -= size
            here = tensor.load(row * size + (within - first))
            found = T.if_then_else(within < first + size, here, found)
        return found

    return flat_kernel(inputs, out, attributes, element)
