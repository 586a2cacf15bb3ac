"""Resizing to the nearest neighbour: copies of whole pixels, vectorised over their channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from hwptq.ir.dataflow import shape_of
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.nearest import nearest_pixels, why_not_nearest
from hwptq.lowering.operand import NotInteger
from hwptq.lowering.output import Output
from hwptq.lowering.rules import lowers
from hwptq.tir.builder import Expr, Flat, loop, share, unravel
from hwptq.tir.kernel import TensorType
from hwptq.tir.stored import Stored
from hwptq.tir.vector_unit import VectorUnit

from .code_operator import CodeOperator
from .rescale import rescaled

_COST = 4  # multiply-accumulates that take as long as a byte


@dataclass(frozen=True)
class Resize(CodeOperator):
    """(x [N,H,W,C], rows int32 [OH], columns int32 [OW]) -> [N,OH,OW,C]: x[n, rows[i], columns[j], c].

    Resizing to the nearest neighbour, by whatever rule that is chosen.
    """

    kind: ClassVar[str] = "resize"
    writes_layouts: ClassVar[bool] = True

    def reference(self, x, rows, columns) -> np.ndarray:
        return x[:, rows][:, :, columns]

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        """Row by row, the pixel that the tables name."""
        n, h, w, c = inputs[0].shape
        _, oh, ow, _ = out.shape

        def emit(x: Flat, rows: Flat, columns: Flat, y: Flat) -> None:
            image = Stored(y, out)

            def part(first: Expr, count: Expr) -> None:
                def row(number: Expr) -> None:
                    b, oy = unravel(first + number, (n, oh))
                    line = (b * h + rows.load(oy)) * w

                    def pixel(ox: Expr) -> None:
                        source, target = (line + columns.load(ox)) * c, image.pixel(b, oy, ox)

                        def block(at: Expr, width: int, count: int) -> None:
                            image.store(target + at, x.load(source + at, width), width, count)

                        unit.cover(c, block)

                    loop(ow, pixel)

                loop(count, row)

            share(n * oh, unit.shared(_COST * n * oh * ow * c), part, image.border(unit))

        return emit


@lowers("image.resize2d", family="resize", makes=(Resize,), why_not=why_not_nearest, selects=True)
def lower_resize(e: Emitter, call: Any, out: Output) -> Any:
    """The nearest pixels, brought to the scale of the result."""
    x, why_not = e.operand(call.args[0]), why_not_nearest(call)
    if why_not:
        raise NotInteger(why_not)
    n, c, h, w = shape_of(call)
    y = e.call(Resize(), [e.images(x.tensor)], nearest_pixels(call), (n, h, w, c), x.dtype, out.image)
    return rescaled(e, replace(x, tensor=e.from_images(y), shape=(n, c, h, w)), out)
