"""QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwptq.ir.dataflow import constant, shape_of

from .writer import Converter, Writer


def _quantize(w: Writer, call: Any, output: str) -> str:
    axis = {"axis": int(call.attrs.axis) % len(shape_of(call))} if shape_of(call.args[1]) else {}
    x, scale, zero = call.args
    return w.node(
        "QuantizeLinear", [w.name(x), w.name(scale), _zero(w, zero, call.ty.dtype)], output, **axis
    )  # fmt: skip


def _dequantize(w: Writer, call: Any, output: str) -> str:
    axis = {"axis": int(call.attrs.axis) % len(shape_of(call))} if shape_of(call.args[1]) else {}
    values = constant(call.args[0])
    data = w.name(call.args[0]) if values is None else w.tensor(values, f"{output}_int8")
    zero = _zero(w, call.args[2], call.args[0].ty.dtype)
    return w.node("DequantizeLinear", [data, w.name(call.args[1]), zero], output, **axis)


def _zero(w: Writer, expr: Any, dtype: Any) -> str:
    """A zero point in the dtype of its tensor, as ONNX has it; Relax holds that of e4m3 as float16."""
    value = constant(expr)
    return w.name(expr) if value is None else w.tensor(value.astype(np.dtype(str(dtype))))


CONVERTERS: dict[str, Converter] = {
    "quantize": _quantize,
    "dequantize": _dequantize,
}
