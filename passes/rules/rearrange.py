"""Rules of LowerToInteger for what only moves values: the same codes elsewhere, whatever their dtype."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tvm import relax

from hwptq.ir.dataflow import op_name, shape_of, slice_bounds

from .operands import NotInteger, Operand
from .pixel_shuffle import shuffled_image

#: (emitter, operand, output) -> the operand's values in the output's scale.
Rescale = Callable[[Any, Operand, Any], Any]
#: (before, after, real value, operand) -> the operator that pads.
Padding = Callable[[tuple[int, ...], tuple[int, ...], float, Operand], Any]


def moved(e: Any, call: Any, out: Any, x: Operand, rescale: Rescale, padding: Padding) -> Any:
    """reshape, transpose, slice, pad and the like."""
    name = op_name(call)
    if name == "nn.pad":
        y = _padded(e, call, x, padding)
    elif name == "permute_dims" and e.is_image(x.tensor) and _axes(call) == [0, 2, 3, 1]:
        y = e.images(x.tensor)
    elif name == "strided_slice" and e.is_image(x.tensor):
        y = e.from_images(_sliced_image(call, e.images(x.tensor)))
    elif name in ("permute_dims", "strided_slice"):
        y = e.keep(call, x.tensor)
    else:
        shuffled = shuffled_image(e, call) if name == "reshape" else None
        y = e.reshaped(x.tensor, shape_of(call)) if shuffled is None else shuffled
    return rescale(e, replace(x, tensor=y, shape=shape_of(call)), out)


def concat(e: Any, call: Any, out: Any, operands: list[Operand], rescale: Rescale) -> Any:
    """Operands in one scale, one behind the other."""
    parts = [rescale(e, t, out) for t in operands]
    axis = int(call.attrs.axis) % len(shape_of(call))
    if len(shape_of(call)) == 4 and any(e.is_image(p) for p in parts):
        images = [e.images(p) for p in parts]
        return e.from_images(e.r.emit(relax.op.concat(images, axis=(0, 3, 1, 2)[axis]), out.image_name))
    return e.r.emit(relax.op.concat(parts, axis=axis), out.tensor_name)


def _padded(e: Any, call: Any, x: Operand, padding: Padding) -> Any:
    """Padding with a constant that is a value of the tensor's scale."""
    if str(call.attrs.pad_mode) != "constant":
        raise NotInteger(f"padding by {call.attrs.pad_mode}")
    widths = [int(p) for p in call.attrs.pad_width]
    if min(widths) < 0:
        raise NotInteger("a negative padding")
    images = e.is_image(x.tensor)
    order = (0, 2, 3, 1) if images else tuple(range(len(widths) // 2))
    before, after = (tuple(widths[2 * i + k] for i in order) for k in (0, 1))
    op = padding(before, after, float(call.attrs.pad_value), x)
    tensor = e.images(x.tensor) if images else x.tensor
    y = e.call(op, [tensor], (), tuple(shape_of(call)[i] for i in order), str(tensor.ty.dtype))
    return e.from_images(y) if images else y


def _sliced_image(call: Any, image: Any) -> Any:
    """A slice of an NCHW tensor, taken from its NHWC form."""
    axes, begin, end, strides = slice_bounds(call)
    moved = [(0, 3, 1, 2)[a % 4] for a in axes]
    return relax.op.strided_slice(image, moved, begin, end, strides, assume_inbound=False)


def _axes(call: Any) -> list[int]:
    rank = len(shape_of(call.args[0]))
    axes = call.attrs.axes
    return list(range(rank))[::-1] if axes is None else [int(a) % rank for a in axes]
