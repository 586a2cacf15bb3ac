"""The ONNX model of a QDQ module."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import tvm
from onnx import helper
from tvm import relax

from hwptq import __version__
from hwptq.formats import format_of
from hwptq.frontends.onnx.float_nodes import write_float_nodes
from hwptq.ir.dataflow import arguments, bindings, constant
from hwptq.ir.operator import integer_operator
from hwptq.ir.provenance import Part, origins
from hwptq.ir.qdq import quantizes
from hwptq.operators.group_dense import GroupDequantize
from hwptq.passes.graph.quantizable import float_reasons

from .calls import write_binding
from .groups import OPSET as GROUPS_OPSET
from .weights_file import WeightsFile
from .writer import NotExportable, Writer, tensor_type

OPSET = 19  # or a newer one that a format asks for
#: Bytes of constants from which they lie in a file beside the model.
APART = 2**28
_IR_VERSIONS = {19: 9, 21: 10}  # by opset


def export_qdq(mod: tvm.IRModule, outputs: Sequence[str], name: str) -> onnx.ModelProto:
    """`main` of a QDQ module (or a float one) as an ONNX model with the output names `outputs`.

    Raises NotExportable for an operator without a converter.
    """
    model = _model(mod, outputs, name, Writer())
    onnx.checker.check_model(model, full_check=True)
    return model


def _model(mod: tvm.IRModule, outputs: Sequence[str], name: str, writer: Writer) -> onnx.ModelProto:
    func = mod["main"]
    for param in func.params:
        writer.names[param] = writer.fresh(str(param.name))
    named = origins(func)
    coded = {value.args[0] for _, value in bindings(func) if quantizes(value)}
    for var, value in bindings(func):
        write_binding(writer, mod, var, value, named[var].hint, coded)
    result = func.body.body
    result = dict(bindings(func)).get(result, result) if isinstance(result, relax.Var) else result
    results = list(result.fields) if isinstance(result, relax.Tuple) else [func.body.body]
    for expr, output in zip(results, outputs, strict=True):
        unused = writer.fresh(output, exact=True)  # first: it may rename what `expr` is
        writer.node("Identity", [writer.name(expr)], unused)
    graph = helper.make_graph(
        writer.nodes,
        name,
        [helper.make_tensor_value_info(writer.names[p], *tensor_type(p)) for p in func.params],
        [helper.make_tensor_value_info(o, *tensor_type(e)) for e, o in zip(results, outputs, strict=True)],
        writer.initializers,
    )
    held = [format_of(str(v.ty.dtype)) for v, value in bindings(func) if quantizes(value)]
    blocked = [
        GROUPS_OPSET for _, v in bindings(func) if isinstance(integer_operator(mod, v), GroupDequantize)
    ]
    opset = max([OPSET, *blocked, *(f.opset for f in held)])
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=_IR_VERSIONS[opset],
        producer_name="hwptq",
        producer_version=__version__,
    )
    left = [(writer.names[var], why) for var, why in _in_float(func).items()]
    write_float_nodes(model, {name: why for name, why in left if isinstance(name, str)})  # no Tuples
    return model


def _in_float(func: relax.Function) -> dict[relax.Var, str]:
    """The tensors that nodes in float make, though a quantize reads them, and why each is in float."""
    named, reasons = origins(func), float_reasons(func)
    made = [var for var, _ in bindings(func) if named[var].part is Part.RESULT]
    return {var: reasons[named[var].label] for var in made if named[var].label in reasons}


def save_qdq(mod: tvm.IRModule, outputs: Sequence[str], name: str, path: Path, apart: int = APART) -> str:
    """Write the module to `path`; returns the file's name, or why there is none.

    Of a module whose constants have `apart` bytes or more, large ones go into a file beside it, <path>.bin in
    the place of <path>.onnx.
    """
    weights = path.with_suffix(".bin")
    try:
        if _constant_bytes(mod) < apart:
            onnx.save(export_qdq(mod, outputs, name), str(path))
            return path.name
        with weights.open("wb") as file:
            onnx.save(_model(mod, outputs, name, Writer(WeightsFile(file, weights.name).tensor)), str(path))
        onnx.checker.check_model(str(path), full_check=True)
    except NotExportable as error:
        weights.unlink(missing_ok=True)
        return f"not written: {error}"
    return path.name


def _constant_bytes(mod: tvm.IRModule) -> int:
    """Of the constants of `main`, as the module holds them."""
    read = (a for _, value in bindings(mod["main"]) for a in arguments(value))
    parts = (part for a in read for part in (a.fields if isinstance(a, relax.Tuple) else [a]))
    return sum(array.nbytes for array in map(constant, parts) if array is not None)
