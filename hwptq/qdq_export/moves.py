"""What moves elements and computes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwptq.ir.dataflow import shape_of, slice_bounds
from hwptq.ir.movement import SAME_ORDER, order_of_axes

from .writer import Converter, Writer, ints


def _reshape(w: Writer, call: Any, output: str) -> str:
    shape = w.tensor(np.array(shape_of(call), np.int64))
    return w.node("Reshape", [w.name(call.args[0]), shape], output)


def _expand(w: Writer, call: Any, output: str) -> str:
    shape = w.tensor(np.array(shape_of(call), np.int64))
    return w.node("Expand", [w.name(call.args[0]), shape], output)


def _transpose(w: Writer, call: Any, output: str) -> str:
    return w.node("Transpose", [w.name(call.args[0])], output, perm=order_of_axes(call))


def _concat(w: Writer, call: Any, output: str) -> str:
    fields = call.args[0].fields
    return w.node("Concat", [w.name(f) for f in fields], output, axis=int(call.attrs.axis))


def _slice(w: Writer, call: Any, output: str) -> str:
    axes, begin, end, strides = slice_bounds(call)
    tensors = [w.tensor(np.array(v, np.int64)) for v in (begin, end, axes, strides)]
    return w.node("Slice", [w.name(call.args[0]), *tensors], output)


def _pad(w: Writer, call: Any, output: str) -> str:
    widths = ints(call.attrs.pad_width)
    pads = w.tensor(np.array([*widths[::2], *widths[1::2]], np.int64))
    value = w.tensor(np.asarray(float(call.attrs.pad_value), np.float32))
    return w.node("Pad", [w.name(call.args[0]), pads, value], output, mode=str(call.attrs.pad_mode))


def _take(w: Writer, call: Any, output: str) -> str:
    axis = 0 if call.attrs.axis is None else int(call.attrs.axis)
    return w.node("Gather", [w.name(a) for a in call.args], output, axis=axis)


def _split(w: Writer, call: Any, output: str) -> list[str]:
    axis = int(call.attrs.axis)
    sizes = [int(t.shape.values[axis]) for t in call.ty.fields]
    outputs = [w.fresh(f"{output}_{i}") for i in range(len(sizes))]
    inputs = [w.name(call.args[0]), w.tensor(np.array(sizes, np.int64))]
    return list(w.node("Split", inputs, outputs, axis=axis))


CONVERTERS: dict[str, Converter] = {
    **dict.fromkeys(SAME_ORDER, _reshape),
    "broadcast_to": _expand,
    "permute_dims": _transpose,
    "concat": _concat,
    "strided_slice": _slice,
    "nn.pad": _pad,
    "take": _take,
    "split": _split,
}
