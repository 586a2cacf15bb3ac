"""Maxima over windows of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.formats import holds_floats
from hwptq.ir.dataflow import shape_of
from hwptq.ir.operator import Operator, Shape
from hwptq.lowering.averaging import over_pixels, pixels_of, why_not_pixels
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.operand import four, pair
from hwptq.lowering.output import Output
from hwptq.lowering.rules import lowers
from hwptq.quant.float_values import store, value
from hwptq.quant.window import pooled, rows_read
from hwptq.tir.builder import constant
from hwptq.tir.kernel import TensorType
from hwptq.tir.vector_unit import VectorUnit
from hwptq.tir.windows import emit_pool

from .code_operator import CodeOperator
from .rescale import rescaled


@dataclass(frozen=True)
class MaxPool(CodeOperator):
    """(x [N,H,W,C]) -> [N,OH,OW,C]; padding never wins, and neither does NaN."""

    kind: ClassVar[str] = "max_pool"
    writes_layouts: ClassVar[bool] = True
    pool_size: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    out_shape: tuple[int, int]  # OH, OW: ceil mode is resolved here

    def reference(self, x) -> np.ndarray:
        if not holds_floats(str(x.dtype)):
            return pooled(self, x, self.dilation, np.iinfo(x.dtype).min).max(axis=(4, 5))
        view = pooled(self, value(x), self.dilation, np.float32(-np.inf))
        best = np.full(view.shape[:4], -np.inf, np.float32)
        for ky, kx in np.ndindex(*self.pool_size):
            best = np.where(view[..., ky, kx] > best, view[..., ky, kx], best)
        return store(best, str(x.dtype))

    def of_rows(self, rows: range, inputs: Sequence[Shape]) -> tuple[Operator, list[range]] | None:
        top, left, _, right = self.padding
        window = self.pool_size[0], self.strides[0], self.dilation[0]
        seen, above, below = rows_read(rows, inputs[0][1], *window, top)
        part = replace(self, padding=(above, left, below, right), out_shape=(len(rows), self.out_shape[1]))
        return (part, [seen]) if seen else None

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        """Padding is left out of the window."""
        dtype = inputs[0].dtype
        return emit_pool(
            self,
            self.dilation,
            inputs[0],
            out,
            unit,
            dtype,
            begin=lambda width: constant(int(np.iinfo(dtype).min), dtype, width),
            step=lambda acc, x, width: T.max(acc, x),
            finish=lambda acc, number, width: acc,
        )


def _why_not(call: Any) -> str | None:
    return None if str(call.attrs.layout) == "NCHW" else f"pooling of layout {call.attrs.layout}"


@lowers("nn.max_pool2d", family="max_pool", makes=(MaxPool,), why_not=_why_not, selects=True)
def lower_max_pool(e: Emitter, call: Any, out: Output) -> Any:
    """The largest codes, brought to the scale of the result."""
    x, attrs = e.operand(call.args[0]), call.attrs
    n, c, h, w = shape_of(call)
    window = pair(attrs.pool_size), pair(attrs.strides), four(attrs.padding), pair(attrs.dilation), (h, w)
    y = e.call(MaxPool(*window), [e.images(x.tensor)], (), (n, h, w, c), x.dtype, out.image)
    return rescaled(e, replace(x, tensor=e.from_images(y), shape=(n, c, h, w)), out)


@lowers("max", family="max_pool", makes=(MaxPool,), why_not=why_not_pixels, selects=True)
def lower_max(e: Emitter, call: Any, out: Output) -> Any:
    """The largest codes of all pixels or tokens, brought to the scale of the result."""
    x, (n, h, w, c) = e.operand(call.args[0]), over_pixels(call)
    op = MaxPool((h, w), (h, w), (0, 0, 0, 0), (1, 1), (1, 1))
    y = e.call(op, [pixels_of(e, x, call)], (), (n, 1, 1, c), x.dtype, out.image)
    tensor = e.reshaped(e.from_images(y), shape_of(call))
    return rescaled(e, replace(x, tensor=tensor, shape=shape_of(call)), out)
