"""Recurrent layers: one tensor holds the states and the last of them, where ONNX has a tensor for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm

from hwptq.ir.dataflow import constant, op_name, shape_of, slice_bounds
from hwptq.ir.real_operator import real_operator
from hwptq.operators.real_recurrent import RealRecurrent, optional
from hwptq.quant.row_codes import row_codes

from .codes import dequantized, quantized
from .writer import NotExportable, Writer

_DIRECTIONS = {(False,): "forward", (True,): "reverse", (False, True): "bidirectional"}
#: What ONNX calls the results, from all states on.
_RESULTS = ("", "_h", "_c")


class Results(list[str]):
    """The names of all results of a layer, which are one tensor in the module."""


def layer_as_onnx(w: Writer, mod: tvm.IRModule, call: Any, output: str, coded: bool) -> Results | None:
    """The names of the results of an LSTM, GRU or RNN that is added to a writer; None for another call.

    coded: its result is quantized. Where what it reads is so too, its weights are int8 codes behind a DQ.
    """
    real = real_operator(mod, call)
    if not isinstance(real, RealRecurrent):
        return None
    x, *given, weight, bias = call.args[1].fields
    names = [w.name(a) for a in (x, *given)]
    lengths, hidden, cell = optional(names[1:], (real.lengths, real.initial_hidden, real.initial_cell))
    form = real.form(shape_of(x), shape_of(call))
    held, added = (np.asarray(constant(a)) for a in (weight, bias))
    rows = held.reshape(len(form.backwards), -1, form.inputs + form.hidden)
    integers = coded and w.maker(names[0]) == "DequantizeLinear"
    parts = rows[..., : form.inputs], rows[..., form.inputs :]
    matrices = [_matrix(w, part, f"{output}_{n}", integers) for part, n in zip(parts, "WR", strict=True)]
    halves = added.reshape(2, len(form.backwards), -1).transpose(1, 0, 2)
    inputs = [names[0], *matrices, w.tensor(halves.reshape(len(form.backwards), -1)), lengths, hidden, cell]
    while inputs[-1] is None:
        inputs.pop()
    results = Results(w.fresh(f"{output}{suffix}") for suffix in _RESULTS[: 1 + form.last])
    reset = {"linear_before_reset": int(form.reset_after)} if form.cell == "gru" else {}
    w.node(
        form.cell.upper(), [name or "" for name in inputs], results, hidden_size=form.hidden,
        direction=_DIRECTIONS[form.backwards], **reset,
    )  # fmt: skip
    return results


def _matrix(w: Writer, weight: np.ndarray, name: str, integers: bool) -> str:
    """W or R [directions, gates * hidden, K] as a float constant, or as codes with a scale for each row."""
    weight = np.ascontiguousarray(weight)
    if not integers:
        return w.tensor(weight, name)
    codes, scale = row_codes(weight.reshape(-1, weight.shape[-1]))
    inputs = [w.tensor(codes, f"{name}_int8"), w.tensor(scale), w.tensor(np.zeros(scale.shape, np.int8))]
    real = w.node("DequantizeLinear", inputs, w.fresh(f"{name}_real"), axis=0)
    return str(w.node("Reshape", [real, w.tensor(np.array(weight.shape, np.int64))], w.fresh(name)))


def results_as_onnx(w: Writer, call: Any, output: str) -> Any:
    """What is done with the results of a layer: Q and DQ of each, a slice that is one of them or lies in it;
    None for what reads no such results."""
    op, source = op_name(call), w.names.get(call.args[0]) if call.args else None
    if not isinstance(source, Results):
        return None
    step: Callable[..., str] | None = {"quantize": quantized, "dequantize": dequantized}.get(op)
    if step is not None:
        named = zip(source, _RESULTS, strict=False)
        return Results(step(w, name, call, w.fresh(f"{output}{suffix}")) for name, suffix in named)
    if op != "strided_slice":
        raise NotExportable(f"{output}: {op} of all results of a recurrent layer has no ONNX form")
    return _slice(w, source, call, output)


def _slice(w: Writer, results: Results, call: Any, output: str) -> str:
    axes, (begin, *_), (end, *_), strides = slice_bounds(call)
    steps = shape_of(call.args[0])[0] - len(results) + 1
    if axes != [0] or strides != [1]:
        raise NotExportable(f"{output}: a slice of a recurrent layer along other axes than its steps")
    if begin >= steps and end == begin + 1:
        shape = w.tensor(np.array(shape_of(call), np.int64))
        return str(w.node("Reshape", [results[1 + begin - steps], shape], output))
    if end > steps:
        raise NotExportable(f"{output}: a slice of several results of a recurrent layer")
    if (begin, end) == (0, steps):
        return results[0]
    bounds = [w.tensor(np.array([v], np.int64)) for v in (begin, end, 0)]
    return str(w.node("Slice", [results[0], *bounds], output))
