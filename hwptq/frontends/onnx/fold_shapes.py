"""ONNX -> ONNX: what follows from the sizes of the inputs becomes constants.

Exporters write the arithmetic of shapes into the graph (Shape, Gather, Concat, Reshape …). With every axis of
the inputs known it is constant, and what is left has static shapes, which the importer needs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from .limits import check_result, check_shapes
from .rewrites.random_operators import RANDOM
from .weights.external_weights import array_of

#: Weights keep their Q and DQ, random numbers are drawn anew, and branches are not ours to choose.
_KEPT = {
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    *RANDOM,
    *("If", "Loop", "Scan"),
}
#: Larger results are left to the compiler: weights that are transposed, say.
_MOST_ELEMENTS = 2**16
_LARGEST = 2**31  # bytes of a message that protobuf writes, and so of a model that onnx can infer shapes of


def fold_shapes(model: onnx.ModelProto, inputs: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """The model with the shapes of its inputs, and no node whose outputs these determine.

    Nodes keep their names and order. A node that can't be evaluated stays, and so does one that gives an
    output of the model. Raises UnsupportedError where a result would be too large, or empty.
    """
    if model.ByteSize() >= _LARGEST:
        return model
    model = with_inputs(model, inputs)
    shapes: dict[str, tuple[int, ...]] = {}  # first comes what no input determines: inference computes it too
    while (folded := _constants(model, shapes)) or not shapes:
        graph = model.graph
        kept = [node for node in graph.node if not all(o in folded for o in node.output if o)]
        del graph.node[:]
        graph.node.extend(kept)
        graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in folded.items())
        shapes = static_shapes(model)
        if not shapes:
            break
        check_shapes(graph, shapes)
    return model


def with_inputs(model: onnx.ModelProto, inputs: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """The model with these shapes, without what its file says of others."""
    given, model = model, onnx.ModelProto()
    model.CopyFrom(given)
    del model.graph.value_info[:]
    for value in model.graph.input:
        if value.name in inputs:
            dims = value.type.tensor_type.shape.dim
            for dim, size in zip(dims, inputs[value.name], strict=True):
                dim.dim_value = size
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return model


def _constants(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The outputs of nodes that are constant, by name, as far as one pass over the shapes tells."""
    known = {t.name: t for t in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    values: dict[str, np.ndarray] = {}

    def value(name: str) -> np.ndarray | None:
        if name in values or name not in known:
            return values.get(name)
        return array_of(known[name])

    for node in model.graph.node:
        if node.op_type == "Shape" and node.input[0] in shapes:
            feeds = {node.input[0]: np.broadcast_to(np.float32(0), shapes[node.input[0]])}
        elif node.op_type not in _KEPT and node.domain in ("", "ai.onnx"):
            feeds = {name: array for name in node.input if name and (array := value(name)) is not None}
        else:
            continue
        if all(name in feeds for name in node.input if name) and outputs.isdisjoint(node.output):
            check_result(node, [feeds[name] for name in node.input if name])
            values.update(_evaluated(node, feeds, model))
    return values


def _evaluated(
    node: onnx.NodeProto, feeds: Mapping[str, np.ndarray], model: onnx.ModelProto
) -> dict[str, np.ndarray]:
    """The outputs of a node, by name; none where it can't be evaluated, or is large."""
    inputs = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in feeds.items()
    ]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = onnx.helper.make_graph([node], "node", inputs, outputs)
    alone = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    try:
        results = ReferenceEvaluator(alone).run(None, dict(feeds))
    except Exception:  # what the evaluator doesn't know is the importer's business
        return {}
    arrays = [np.asarray(result) for result in results]
    if any(array.size > _MOST_ELEMENTS for array in arrays):
        return {}
    return dict(zip((name for name in node.output if name), arrays, strict=True))


def static_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shapes of tensors all of whose axes are known."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            shapes[value.name] = tuple(d.dim_value for d in tensor.shape.dim)
    return shapes
