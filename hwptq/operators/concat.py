"""Tensors one behind the other, by Relax's own operator."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from hwptq.ir.dataflow import constant, shape_of
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.output import Output
from hwptq.lowering.rules import lowers

from .rescale import rescaled


@lowers("concat", family="concat", selects=True)
def lower_concat(e: Emitter, call: Any, out: Output) -> Any:
    """The parts in the scale of the result, joined; images in NHWC."""
    parts = [_part(e, field, out) for field in call.args[0].fields]
    axis = int(call.attrs.axis) % len(shape_of(call))
    if len(shape_of(call)) == 4 and any(e.is_image(p) for p in parts):
        images = [_image(e, p) for p in parts]
        return e.from_images(e.r.emit(relax.op.concat(images, axis=(0, 3, 1, 2)[axis]), out.image))
    return e.r.emit(relax.op.concat(parts, axis=axis), out.tensor)


def _part(e: Emitter, expr: Any, out: Output) -> Any:
    real = constant(expr)
    return rescaled(e, e.operand(expr), out) if real is None else relax.const(out.quantized(real))


def _image(e: Emitter, part: Any) -> Any:
    """A part in NHWC."""
    codes = constant(part)
    return e.images(part) if codes is None else relax.const(np.ascontiguousarray(codes.transpose(0, 2, 3, 1)))
