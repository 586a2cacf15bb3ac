"""What a template returns: the steps that compute one integer operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tvm

from .layout import PLAIN, Layout


@dataclass(frozen=True)
class TensorType:
    """Shape and dtype of one tensor, and how it lies in memory."""

    shape: tuple[int, ...]
    dtype: str
    layout: Layout = PLAIN

    @property
    def stored(self) -> TensorType:
        """The plain array that holds it: itself, or one row of all elements in another layout."""
        if self.layout == PLAIN:
            return self
        return TensorType((self.layout.elements(self.shape),), self.layout.dtype)


#: A step's argument: the operator's activation of that index, the step that many before (negative), or a
#: constant.
Argument = int | np.ndarray
PREVIOUS = -1


def overlaid(types: Sequence[TensorType], operands: range) -> str:
    """Those of the parameters `operands` that lie in memory as the last one, the result: for OVERLAYS."""
    out = types[-1]
    alike = [
        i
        for i in operands
        if (types[i].shape, types[i].dtype) == (out.shape, out.dtype)
        and types[i].layout.places_as(out.layout)
    ]
    return " ".join(map(str, alike))


@dataclass(frozen=True)
class Step:
    """One call of a PrimFunc, whose parameters are `args` and then the output."""

    func: tvm.tirx.PrimFunc
    args: tuple[Argument, ...]
    out: TensorType
    name: str  # becomes the symbol of the kernel, e.g. "conv2d_dot_product"
