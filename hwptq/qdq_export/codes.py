"""QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwptq.ir.dataflow import constant, shape_of

from .writer import Converter, Writer


def quantized(w: Writer, source: str, call: Any, output: str) -> str:
    """The codes of a tensor that is called `source`, as a quantize has it."""
    _, scale, zero = call.args
    inputs = [source, w.name(scale), _zero(w, zero, call.ty.dtype)]
    return str(w.node("QuantizeLinear", inputs, output, **_axis(call)))


def dequantized(w: Writer, source: str, call: Any, output: str) -> str:
    """The values of codes that are called `source`, as a dequantize has it."""
    codes, scale, zero = call.args
    inputs = [source, w.name(scale), _zero(w, zero, codes.ty.dtype)]
    return str(w.node("DequantizeLinear", inputs, output, **_axis(call)))


def _axis(call: Any) -> dict[str, int]:
    """That of the scales, where there are several."""
    return {"axis": int(call.attrs.axis) % len(shape_of(call))} if shape_of(call.args[1]) else {}


def _quantize(w: Writer, call: Any, output: str) -> str:
    return quantized(w, w.name(call.args[0]), call, output)


def _dequantize(w: Writer, call: Any, output: str) -> str:
    values = constant(call.args[0])
    source = w.name(call.args[0]) if values is None else w.tensor(values, f"{output}_int8")
    return dequantized(w, source, call, output)


def _zero(w: Writer, expr: Any, dtype: Any) -> str:
    """A zero point in the dtype of its tensor, as ONNX has it; Relax holds that of e4m3 as float16."""
    value = constant(expr)
    return w.name(expr) if value is None else w.tensor(value.astype(np.dtype(str(dtype))))


CONVERTERS: dict[str, Converter] = {
    "quantize": _quantize,
    "dequantize": _dequantize,
}
