"""Which pixels a resize2d to the nearest neighbour takes: tables of rows and columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from hwptq.evaluate.interpret import Interpreter
from hwptq.ir.dataflow import shape_of

#: This mode takes a value that the image may not hold where it reaches beyond it.
_EXTRAPOLATES = "tf_crop_and_resize"


def why_not_nearest(call: Any) -> str | None:
    """Why a resize2d does more than taking the nearest pixels of an NCHW image; None where it doesn't."""
    attrs = call.attrs
    if str(attrs.method) != "nearest_neighbor":
        return f"a resize by {attrs.method} interpolation has no integer form"
    if str(attrs.layout) != "NCHW":
        return f"resize of layout {attrs.layout}"
    if str(attrs.coordinate_transformation_mode) == _EXTRAPOLATES:
        return "a resize of a region of interest has no integer form"
    return None


def nearest_pixels(call: Any) -> tuple[np.ndarray, np.ndarray]:
    """The row of the image that each output row is, and the same of columns: int32 [OH], int32 [OW].

    Found by resizing an image whose pixels hold their own coordinates, so it is what the operator does in
    float, roundings included.
    """
    height, width = shape_of(call.args[0])[2:]
    coordinates = np.mgrid[:height, :width].astype(np.float32)[None]
    image = relax.Var("image", relax.TensorType(coordinates.shape, "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [image]):
        call = relax.Call(call.op, [image, *call.args[1:]], call.attrs, call.ty_args)
        builder.emit_func_output(builder.emit(call))
    (found,) = Interpreter(builder.get()).run({"image": coordinates})
    rows, columns = found[0].astype(np.int32)
    return rows[:, 0], columns[0]


def resized(call: Any, image: np.ndarray) -> np.ndarray:
    """The call's output for an array [N,C,H,W] of any dtype."""
    rows, columns = nearest_pixels(call)
    return image[:, :, rows][..., columns]
