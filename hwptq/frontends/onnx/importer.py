"""ONNX file -> Relax module, float32, batch 1, with the node names of the file."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tvm
from onnx import TensorProto, numpy_helper
from tvm import relax

from hwptq.errors import InputError, UnsupportedError
from hwptq.ir.dataflow import bindings, main_functions, op_name, rewrite
from hwptq.notices import Warning

from .fold_shapes import fold_shapes
from .input_shapes import input_shapes
from .operators import NamingImporter

#: ONNX's own operators, and those that ONNX Runtime adds.
_DOMAINS = ("", "ai.onnx", "com.microsoft")
#: Operators that may be followed by the addition of a bias.
_HEADS = ("nn.conv2d", "nn.conv2d_transpose", "matmul")
_UNNAMED = re.compile(r"lv\d*")  # what TVM calls the values inside a node


@dataclass(frozen=True)
class Model:
    """A model as it enters the flow."""

    name: str
    module: tvm.IRModule
    inputs: dict[str, tuple[tuple[int, ...], str]]  # name -> (shape with batch 1, dtype)
    outputs: tuple[str, ...]
    warnings: tuple[Warning, ...] = ()


def import_onnx(path: str | Path, axes: Mapping[str, int] | None = None) -> Model:
    """Read an ONNX file; `axes`: sizes of symbolic axes, by their name or as INPUT.AXIS.

    Raises InputError (file, names of axes) or UnsupportedError (operators, shapes).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of an ONNX model")
    try:
        proto = onnx.load(str(path))
        onnx.checker.check_model(proto)
    except Exception as error:
        raise InputError(f"{path}: not a readable ONNX model: {_first_line(error)}") from error
    opset = max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=1)
    if opset < 9:
        raise UnsupportedError(f"{path}: opset {opset}; export the model with opset 9 or newer")
    for node in proto.graph.node:  # TVM looks at the name of an operator only
        if node.domain not in _DOMAINS:
            raise UnsupportedError(f"{path}: operator {node.op_type} of domain {node.domain} is not known")
    proto = _name_nodes(_widen_int4(_widen_float16(proto)))
    weights = {i.name for i in proto.graph.initializer}
    fed = [i for i in proto.graph.input if i.name not in weights]
    shapes = input_shapes(fed, axes or {})
    proto = fold_shapes(proto, shapes)
    inputs = {i.name: (shapes[i.name], _dtype(i)) for i in fed}
    module = _to_relax(proto, opset, inputs, path)
    return Model(path.stem, module, inputs, tuple(o.name for o in proto.graph.output))


def _to_relax(proto: Any, opset: int, inputs: dict[str, Any], path: Path) -> tvm.IRModule:
    shapes = {n: list(s) for n, (s, _) in inputs.items()}
    importer = NamingImporter(shapes, {n: d for n, (_, d) in inputs.items()}, sanitize=True)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            module = importer.from_onnx(proto.graph, opset)
    except Exception as error:
        raise UnsupportedError(f"{path}: {_first_line(error)}") from error
    try:
        return relax.transform.FoldConstant()(_name_heads(module))
    except ValueError as error:  # control flow
        raise UnsupportedError(f"{path}: {error}") from error


def _name_heads(module: tvm.IRModule) -> tvm.IRModule:
    """A node that became one of _HEADS and an add: the first operator bears its name, not the addition."""
    heads: dict[Any, Any] = {}
    for _, func in main_functions(module):
        values = dict(bindings(func))
        for var, value in values.items():
            source: Any = value.args[0] if op_name(value) == "add" else None
            if op_name(values.get(source)) in _HEADS and _UNNAMED.fullmatch(str(source.name)):
                heads[source] = var

    def visit(r: Any, var: Any, value: Any) -> Any:
        if var in heads:
            return r.emit(r.keep(value), str(heads[var].name))
        return r.emit(r.keep(value), f"{var.name}_bias") if var in heads.values() else r.keep(value)

    return rewrite(module, visit)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _dtype(value: Any) -> str:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)).name


def _name_nodes(proto: Any) -> Any:
    """The model with a name on every node: its own, or that of its first output."""
    for node in proto.graph.node:
        node.name = node.name or node.output[0]
    return proto


def _widen_float16(proto: Any) -> Any:
    """The model with every float16 tensor as float32."""
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
            )
    for value in [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in proto.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            if attribute.t.data_type == TensorProto.FLOAT16:
                array = numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(numpy_helper.from_array(array, attribute.t.name))
    return proto


def _widen_int4(proto: Any) -> Any:
    """The model with int4 and uint4 weights as int8 and uint8 ones; NormalizeQDQ sees that they fit."""
    wider = {TensorProto.INT4: np.int8, TensorProto.UINT4: np.uint8}
    narrow = {t.name for t in proto.graph.initializer if t.data_type in wider}
    for node in proto.graph.node:
        if node.op_type == "QuantizeLinear" and narrow & set(node.input):
            raise UnsupportedError(f"node {node.name or node.output[0]!r}: 4-bit activations of a QDQ model")
    for tensor in proto.graph.initializer:
        if tensor.data_type in wider:
            array = numpy_helper.to_array(tensor).astype(wider[tensor.data_type])
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return proto
