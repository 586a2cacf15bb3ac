"""ONNX file -> Relax module, float32, batch 1; every binding knows its node of the file."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import EncodeError
from tvm import relax

from hwptq.cache.digest import NoDigest, digest
from hwptq.errors import UnsupportedError, WithoutCode
from hwptq.ir.mapped import with_mapped
from hwptq.notices import Warning

from ..model import Model, Source
from .bounded_indices import with_bounded_indices
from .check_import import Imported
from .chosen_branch import choose_branches
from .constant_codes import fold_constant_codes
from .cut import Whole, way_to_cut, whole
from .dropped_windows import drop_windows
from .fixed_inputs import fix_inputs
from .float_nodes import with_float_nodes
from .float_types import widen_floats, widen_nibbles
from .fused_operators import name_domains
from .growing_caches import with_fixed_caches
from .importer_errors import said_by_importer
from .input_shapes import input_shapes
from .node_origins import with_node_origins
from .operators import TracingImporter, known_operators
from .read_file import check_onnx, read_onnx
from .simplify import simplified
from .weights.external_weights import as_inputs, digests, weights_apart
from .without_code import refuse_without_code

_OLDEST = 7  # opset; broadcasting was another before


def import_onnx(
    path: str | Path, axes: Mapping[str, int] | None = None, fixed: Mapping[str, float] | None = None
) -> Model:
    """Read an ONNX file; `axes`: sizes of symbolic axes, by their name or as INPUT.AXIS; `fixed`: values of
    inputs that become constants.

    Raises InputError (file, names of axes) or UnsupportedError (operators, shapes).
    """
    path = Path(path)
    return import_proto(read_onnx(path), path.stem, axes, str(path), fixed)


def import_proto(
    proto: onnx.ModelProto, name: str, axes: Mapping[str, int] | None = None, path: str = "the model",
    fixed: Mapping[str, float] | None = None,
) -> Model:  # fmt: skip
    """Read an ONNX model in memory, which is changed on the way. path: what errors call it."""
    source = _source(proto, axes or {}, fixed or {})
    file = whole(proto, path)
    name_domains(proto)
    check_onnx(path, proto, _check)
    opset = max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=1)
    if opset < _OLDEST:
        raise UnsupportedError(f"{path}: opset {opset}; export the model with opset {_OLDEST} or newer")
    warned = widen_floats(proto)
    fold_constant_codes(proto.graph)
    widen_nibbles(proto)
    weights = {i.name for i in proto.graph.initializer}
    fed = [i for i in proto.graph.input if i.name not in weights]
    shapes = input_shapes(fed, axes or {})
    shapes = fix_inputs(proto, shapes, fixed or {})
    shapes, empty = choose_branches(proto, shapes)
    drop_windows(proto, shapes)
    proto, shapes, replaced, growth = with_fixed_caches(proto, shapes)
    fed = [i for i in proto.graph.input if i.name in shapes]
    inputs = {i.name: (shapes[i.name], _dtype(i)) for i in fed}
    simple, rounded = _simplified(proto, shapes, file)
    imported = replace(_to_relax(proto, simple, opset, inputs, path), growth=growth)
    odd = imported.check_shapes()
    outputs = tuple(o.name for o in proto.graph.output)
    module = with_float_nodes(imported.module, proto)
    return Model(
        name,
        module,
        inputs,
        outputs,
        (*warned, *empty, *replaced, *rounded, *odd),
        imported.check_values,
        source,
    )


def _source(proto: onnx.ModelProto, axes: Mapping[str, int], fixed: Mapping[str, float]) -> Source:
    """A model of more than 2 GB has no bytes to be known by."""
    try:
        model = proto.SerializeToString(deterministic=True)
        return Source(digest(model, list(digests(proto)), dict(axes), dict(fixed)))
    except (ValueError, EncodeError, NoDigest):
        return Source()


def _simplified(
    original: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], file: Whole
) -> tuple[onnx.ModelProto, list[Warning]]:
    """The model that TVM's importer reads, and what its user should know. Raises UnsupportedError."""
    try:
        proto, warned = simplified(original, shapes, known_operators())
        refuse_without_code(proto.graph, known_operators(), file.path)
    except WithoutCode as error:
        way = way_to_cut(original, shapes, known_operators(), file)
        by = f" by {way}" if way else ""
        raise UnsupportedError(
            f"{error}; cut the model before it{by}, and do the rest in the program that calls the code"
        ) from error
    except (RuntimeError, ValueError, onnx.shape_inference.InferenceError) as error:  # of ONNX
        raise UnsupportedError(f"{file.path}: {said_by_importer(error, '')}") from error
    return proto, warned


def _to_relax(
    original: onnx.ModelProto, proto: onnx.ModelProto, opset: int, inputs: dict[str, Any], path: str
) -> Imported:
    shapes = {n: list(s) for n, (s, _) in inputs.items()}
    importer = TracingImporter(shapes, {n: d for n, (_, d) in inputs.items()})
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            raw = importer.from_onnx(proto.graph, opset)
    except Exception as error:
        raise UnsupportedError(f"{path}: {said_by_importer(error, importer.at)}") from error
    try:
        folded = relax.transform.FoldConstant()(raw)
    except Exception as error:  # TVM takes attributes unchecked, and its own Python falls over them
        said = said_by_importer(error, "")
        raise UnsupportedError(f"{path}: TVM can't compute a constant of the model ({said})") from error
    try:
        module = with_bounded_indices(with_node_origins(folded, importer.results))
    except ValueError as error:
        raise UnsupportedError(f"{path}: {error}") from error
    if weights_apart(original):
        module, raw = with_mapped(module), with_mapped(raw)
    return Imported(original, module, raw, dict(importer._nodes), {n: s for n, (s, _) in inputs.items()})


def _check(proto: onnx.ModelProto) -> None:
    """Raise where the model breaks the standard; an output without a shape is taken as it is, and one without
    a type gets that of its node.
    """
    if any(not o.HasField("type") for o in proto.graph.output):  # of tools that cut models
        inferred = {o.name: o for o in onnx.shape_inference.infer_shapes(proto).graph.output}
        for output in proto.graph.output:
            output.type.CopyFrom(inferred[output.name].type)
    tensors = [o.type.tensor_type for o in proto.graph.output if o.type.HasField("tensor_type")]
    unknown = [t for t in tensors if not t.HasField("shape")]
    for tensor in unknown:
        tensor.shape.SetInParent()
    onnx.checker.check_model(as_inputs(proto))
    for tensor in unknown:
        tensor.ClearField("shape")


def _dtype(value: Any) -> str:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)).name
