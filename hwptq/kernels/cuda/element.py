"""Kernels with a thread for each element of the result: an open set of what a thread computes.

A module that defines the element of an operator registers it: `@element_of.register(Clamp)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any

import tvm

from hwptq.ir.operator import Operator
from hwptq.kernels.template import import_kernels
from hwptq.tir.builder import Expr
from hwptq.tir.kernel import TensorType

from .flat import flat_kernel

#: (number of an element, tensors…) -> that element of the result.
Element = Callable[..., Expr]


@singledispatch
def element_of(op: Operator, inputs: Sequence[TensorType], out: TensorType) -> Element:
    """What a thread computes of `op`. Raises ValueError where no thread can do it alone."""
    raise ValueError(f"no CUDA kernel for {op!r}")


def elementwise_kernel(
    op: Operator, inputs: Sequence[TensorType], out: TensorType, attributes: dict[str, Any]
) -> tvm.tirx.PrimFunc:
    """The PrimFunc (inputs…, out) of `op`."""
    import_kernels()
    return flat_kernel(inputs, out, attributes, element_of(op, inputs, out))
