"""Padding with a constant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from hwptq.formats import holds_floats
from hwptq.ir.dataflow import shape_of
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.operand import NotInteger
from hwptq.lowering.output import Output
from hwptq.lowering.rules import lowers
from hwptq.quant.float_values import codes
from hwptq.tir.builder import Flat, constant
from hwptq.tir.kernel import TensorType
from hwptq.tir.loops import merged, row_major, walk
from hwptq.tir.vector_unit import VectorUnit

from .code_operator import CodeOperator
from .rescale import rescaled


@dataclass(frozen=True)
class Pad(CodeOperator):
    """(x) -> x padded with `value` by `before[i]`, `after[i]` elements on axis i.

    value: an integer, or the bits of a float.
    """

    kind: ClassVar[str] = "pad"
    before: tuple[int, ...]
    after: tuple[int, ...]
    value: int

    def reference(self, x) -> np.ndarray:
        bits = codes(x) if holds_floats(str(x.dtype)) else x
        widths = list(zip(self.before, self.after, strict=True))
        return np.pad(bits, widths, constant_values=self.value).view(x.dtype)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        """Fill the output, then copy the input into it."""
        (x_type,) = inputs
        steps = row_major(out.shape)
        first = sum(b * s for b, s in zip(self.before, steps, strict=True))
        loops = merged(x_type.shape, [row_major(x_type.shape), steps])

        def emit(x: Flat, y: Flat) -> None:
            unit.cover(y.size, lambda at, n, count: y.store(at, constant(self.value, y.dtype, n), n, count))
            walk(loops, unit, lambda at, n, count: y.store(first + at[1], x.load(at[0], n), n, count))

        return emit


@lowers("nn.pad", family="data_movement", makes=(Pad,), selects=True)
def lower_pad(e: Emitter, call: Any, out: Output) -> Any:
    """Padding with a constant, rounded and clamped as any value of the tensor is."""
    x = e.operand(call.args[0])
    if str(call.attrs.pad_mode) != "constant":
        raise NotInteger(f"padding by {call.attrs.pad_mode}")
    widths = [int(p) for p in call.attrs.pad_width]
    if min(widths) < 0:
        raise NotInteger("a negative padding")
    images = e.is_image(x.tensor)
    order = (0, 2, 3, 1) if images else tuple(range(len(widths) // 2))
    before, after = (tuple(widths[2 * i + k] for i in order) for k in (0, 1))
    code = x.format.encode(np.asarray(float(call.attrs.pad_value)), x.scale, x.zero)
    op = Pad(before, after, int(codes(code) if x.format.is_float else code))
    tensor = e.images(x.tensor) if images else x.tensor
    shape = tuple(shape_of(call)[i] for i in order)
    y = e.call(op, [tensor], (), shape, x.dtype)
    y = e.from_images(y) if images else y
    return rescaled(e, replace(x, tensor=y, shape=shape_of(call)), out)
