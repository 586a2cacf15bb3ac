"""What only moves values: the same codes elsewhere, by Relax's own operators."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tvm import relax

from hwptq.ir.dataflow import shape_of, slice_bounds
from hwptq.ir.movement import SAME_ORDER, order_of_axes
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.operand import NotInteger, Operand
from hwptq.lowering.output import Output
from hwptq.lowering.pixel_shuffle import shuffled_image
from hwptq.lowering.rules import lowers

from .rescale import rescaled

_TO_NHWC = (0, 2, 3, 1)


@lowers("permute_dims", family="data_movement", selects=True)
def lower_transpose(e: Emitter, call: Any, out: Output) -> Any:
    """A transpose; one to NHWC may be at hand."""
    x = e.operand(call.args[0])
    at_hand = e.is_image(x.tensor) and order_of_axes(call) == _TO_NHWC
    return _moved(e, call, x, e.images(x.tensor) if at_hand else e.keep(call, x.tensor), out)


@lowers("strided_slice", family="data_movement", selects=True)
def lower_slice(e: Emitter, call: Any, out: Output) -> Any:
    """A slice, of an image in NHWC."""
    x = e.operand(call.args[0])
    if e.is_image(x.tensor):
        y = e.from_images(_sliced_image(call, e.images(x.tensor)))
    else:
        y = e.keep(call, x.tensor)
    return _moved(e, call, x, y, out)


@lowers("reshape", family="data_movement", selects=True)
def lower_reshape(e: Emitter, call: Any, out: Output) -> Any:
    """Another shape; the end of a pixel shuffle is one of the NHWC image."""
    x, shuffled = e.operand(call.args[0]), shuffled_image(e, call)
    return _moved(e, call, x, e.reshaped(x.tensor, shape_of(call)) if shuffled is None else shuffled, out)


@lowers("broadcast_to", family="data_movement", selects=True)
def lower_broadcast(e: Emitter, call: Any, out: Output) -> Any:
    """The same values several times."""
    x = e.operand(call.args[0])
    return _moved(e, call, x, e.keep(call, x.tensor), out)


@lowers(*(name for name in SAME_ORDER if name != "reshape"), family="data_movement", selects=True)
def lower_new_shape(e: Emitter, call: Any, out: Output) -> Any:
    """Another shape."""
    x = e.operand(call.args[0])
    return _moved(e, call, x, e.reshaped(x.tensor, shape_of(call)), out)


@lowers("gather_nd", "gather_elements", family="data_movement", selects=True)
def lower_gather(e: Emitter, call: Any, out: Output) -> Any:
    """Values at places that are constant, or computed, as the last token of each text."""
    x, index = e.operand(call.args[0]), e.r.get(call.args[1])
    if x.is_constant:
        raise NotInteger("a look-up in a constant by computed indices")
    moved = e.r.emit(relax.Call(call.op, [x.tensor, index], call.attrs, call.ty_args))
    return _moved(e, call, x, moved, out)


def _moved(e: Emitter, call: Any, x: Operand, tensor: Any, out: Output) -> Any:
    return rescaled(e, replace(x, tensor=tensor, shape=shape_of(call)), out)


def _sliced_image(call: Any, image: Any) -> Any:
    """A slice of an NCHW tensor, taken from its NHWC form."""
    axes, begin, end, strides = slice_bounds(call)
    moved = [(0, 3, 1, 2)[a % 4] for a in axes]
    return relax.op.strided_slice(image, moved, begin, end, strides, assume_inbound=False)
