"""The nodes of a binding: an operator by its converter, an outlined function by those of its body."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import tvm
from tvm import relax

from hwptq.ir.dataflow import bindings, constant, op_name, shape_of
from hwptq.ir.operator import integer_operator

from . import codes, functions, moves, norms, selections, windows
from .groups import groups_as_onnx
from .order import order_as_onnx
from .recurrent import layer_as_onnx, results_as_onnx
from .rows import rows_as_onnx
from .writer import Converter, NotExportable, Writer

_CONVERTERS: Mapping[str, Converter] = {
    **codes.CONVERTERS, **functions.CONVERTERS, **moves.CONVERTERS, **norms.CONVERTERS,
    **selections.CONVERTERS, **windows.CONVERTERS,
}  # fmt: skip


def write_binding(
    w: Writer, mod: tvm.IRModule, var: Any, value: Any, name: str, coded: Collection[Any]
) -> None:  # fmt: skip
    """The nodes of one binding, the last of them called `name`; coded: vars whose values are quantized.
    Raises NotExportable."""
    if not isinstance(value, relax.Call):
        w.names[var] = w.name(value)
    elif isinstance(value.op, tvm.ir.GlobalVar):
        w.names[var] = _composite(w, mod, name, value)
    else:
        real = layer_as_onnx(w, mod, value, name, var in coded) or order_as_onnx(w, mod, value, name)
        w.names[var] = real or results_as_onnx(w, value, name) or _operator(w, mod, name, value)


def _composite(w: Writer, mod: tvm.IRModule, name: str, call: Any) -> str:
    """The nodes of an outlined function, the last of them called `name`."""
    func = mod[call.op]
    rank = len(shape_of(call))
    for param, argument in zip(func.params, call.args, strict=True):
        array = constant(argument)
        if array is not None and array.ndim == 1 and rank > 2:
            # ONNX Runtime 1.32 makes a Gemm of a product and an added vector, whose Q it rejects
            w.names[param] = w.tensor(array.reshape([1] * (rank - 1) + [-1]))
        else:
            w.names[param] = w.name(argument)
    inner = bindings(func)
    last = next(v for v, value in reversed(inner) if isinstance(value, relax.Call))
    for local, value in inner:
        if isinstance(value, relax.Call):
            suffix = "" if local == last else f"_{op_name(value).removeprefix('nn.')}"
            w.names[local] = _operator(w, mod, f"{name}{suffix}", value)
        else:
            w.names[local] = w.name(value)
    return str(w.name(func.body.body))


def _operator(w: Writer, mod: tvm.IRModule, name: str, call: Any) -> Any:
    op = op_name(call)
    output = w.fresh(name)
    if op in functions.PLAIN:
        return w.node(functions.PLAIN[op], [w.name(a) for a in call.args], output)
    if op == "call_tir":
        made, fields = integer_operator(mod, call), call.args[1].fields
        found = groups_as_onnx(w, made, [constant(a) for a in fields], output)
        found = found or rows_as_onnx(w, made, [w.name(a) for a in fields], output)
        if found is not None:
            return found
    if op not in _CONVERTERS:
        raise NotExportable(f"{name}: {op or 'call'} has no ONNX form")
    return _CONVERTERS[op](w, call, output)
