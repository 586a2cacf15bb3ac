"""Clamps whose bounds differ by channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hwptq.formats import holds_floats
from hwptq.ir.composite import Composite
from hwptq.ir.operator import Operator
from hwptq.ir.provenance import Origin, Part
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.operand import NotInteger
from hwptq.lowering.output import Output
from hwptq.quant.float_values import store, value
from hwptq.tir.builder import Expr, Flat, clamp, loop
from hwptq.tir.kernel import TensorType
from hwptq.tir.vector_unit import VectorUnit

from .code_operator import CodeOperator


@dataclass(frozen=True)
class Clamp(CodeOperator):
    """(x [..., C], lo [C], hi [C]), of one dtype -> x in [lo, hi], channel by channel; NaN becomes lo."""

    kind: ClassVar[str] = "clamp"
    by_value: ClassVar[bool] = True
    without_rule: ClassVar[str] = "a layer with bounds by channel"

    def reference(self, x, lo, hi) -> np.ndarray:
        if not holds_floats(str(x.dtype)):
            return np.clip(x, lo, hi)
        y, low, high = (value(t) for t in (x, lo, hi))
        y = np.where(y > low, y, low)
        return store(np.where(y < high, y, high), str(x.dtype))

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        """Vectors along the channels."""
        channels = out.shape[-1]

        def emit(x: Flat, lo: Flat, hi: Flat, y: Flat) -> None:
            def row(i: Expr) -> None:
                def block(at: Expr, width: int, count: int) -> None:
                    limits = (lo.load(at, width), hi.load(at, width))
                    y.store(i * channels + at, clamp(x.load(i * channels + at, width), *limits), width, count)

                unit.cover(channels, block)

            loop(y.size // channels, row)

        return emit


def emit_clamped(
    e: Emitter, op: Operator, tensors: list[Any], constants: tuple[np.ndarray, ...], shape: tuple[int, ...],
    unit: Composite, out: Output, origin: Origin,
) -> Any:  # fmt: skip
    """Emit `op`, and behind it the clamp of `unit` where that differs by channel."""
    limits = out.channel_bounds(*unit.bounds, shape[-1])
    if limits is None:
        return e.call(op, tensors, constants, shape, out.dtype, origin)
    if out.real:
        raise NotInteger("a clamp that differs by channel, of a result in float32")
    y = e.call(op, tensors, constants, shape, out.dtype, origin.with_part(Part.UNCLAMPED))
    return e.call(Clamp(), [y], limits, shape, out.dtype, origin)
