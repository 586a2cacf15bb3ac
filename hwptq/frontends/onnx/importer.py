"""ONNX file -> Relax module, float32, batch 1; every binding knows its node of the file."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tvm
from tvm import relax

from hwptq.errors import InputError, UnsupportedError
from hwptq.notices import Warning

from .check_import import ImportCheck, Imported
from .float_types import widen_floats, widen_nibbles
from .fold_shapes import fold_shapes
from .input_shapes import input_shapes
from .node_origins import with_node_origins
from .operators import TracingImporter

#: ONNX's own operators, and those that ONNX Runtime adds.
_DOMAINS = ("", "ai.onnx", "com.microsoft")


def _unchecked(inputs: Mapping[str, np.ndarray] | None) -> dict[str, Any]:
    return ImportCheck(reason="there is nothing to compare it with").row()


@dataclass(frozen=True)
class Model:
    """A model as it enters the flow."""

    name: str
    module: tvm.IRModule
    inputs: dict[str, tuple[tuple[int, ...], str]]  # name -> (shape with batch 1, dtype)
    outputs: tuple[str, ...]
    warnings: tuple[Warning, ...] = ()
    #: Compares the module with the user's model on a sample (None: there is none), raises UnsupportedError
    #: where they differ, and gives the object `import_check` of the report.
    check: Callable[[Mapping[str, np.ndarray] | None], dict[str, Any]] = _unchecked


def import_onnx(path: str | Path, axes: Mapping[str, int] | None = None) -> Model:
    """Read an ONNX file; `axes`: sizes of symbolic axes, by their name or as INPUT.AXIS.

    Raises InputError (file, names of axes) or UnsupportedError (operators, shapes).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of an ONNX model")
    try:
        proto = onnx.load(str(path))
        _check(proto)
    except Exception as error:
        raise InputError(f"{path}: not a readable ONNX model: {_first_line(error)}") from error
    opset = max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=1)
    if opset < 9:
        raise UnsupportedError(f"{path}: opset {opset}; export the model with opset 9 or newer")
    for node in proto.graph.node:  # TVM looks at the name of an operator only
        if node.domain not in _DOMAINS:
            raise UnsupportedError(f"{path}: operator {node.op_type} of domain {node.domain} is not known")
    warned = widen_floats(proto)
    widen_nibbles(proto)
    weights = {i.name for i in proto.graph.initializer}
    fed = [i for i in proto.graph.input if i.name not in weights]
    shapes = input_shapes(fed, axes or {})
    inputs = {i.name: (shapes[i.name], _dtype(i)) for i in fed}
    imported = _to_relax(proto, _name_nodes(fold_shapes(proto, shapes)), opset, inputs, path)
    imported.check_shapes(shapes)
    outputs = tuple(o.name for o in proto.graph.output)
    return Model(
        path.stem, imported.module, inputs, outputs, tuple(warned), lambda x: imported.check_values(x).row()
    )


def _to_relax(
    original: onnx.ModelProto, proto: onnx.ModelProto, opset: int, inputs: dict[str, Any], path: Path
) -> Imported:
    shapes = {n: list(s) for n, (s, _) in inputs.items()}
    importer = TracingImporter(shapes, {n: d for n, (_, d) in inputs.items()})
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            raw = importer.from_onnx(proto.graph, opset)
    except Exception as error:
        raise UnsupportedError(f"{path}: {_first_line(error)}") from error
    try:
        module = with_node_origins(relax.transform.FoldConstant()(raw), importer.results)
    except ValueError as error:  # control flow
        raise UnsupportedError(f"{path}: {error}") from error
    return Imported(original, module, raw, dict(importer._nodes))


def _check(proto: onnx.ModelProto) -> None:
    """Raise where the model breaks the standard; an output without a shape is taken as it is."""
    tensors = [o.type.tensor_type for o in proto.graph.output if o.type.HasField("tensor_type")]
    unknown = [t for t in tensors if not t.HasField("shape")]
    for tensor in unknown:
        tensor.shape.SetInParent()
    onnx.checker.check_model(proto)
    for tensor in unknown:
        tensor.ClearField("shape")


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
