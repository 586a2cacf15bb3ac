"""Branches and loops: those whose course is known become the nodes of that course, others are refused."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from hwptq.errors import UnsupportedError

from .fold_shapes import static_shapes
from .read_file import node_name
from .rewrites.known_branches import take_known_branches
from .rewrites.unrolled import unroll_known_loops
from .without_code import refuse_sized_by_values

_UNKNOWN = {
    "If": "its condition is computed from the inputs; give the input that decides ({fix}), export "
    "the wanted branch, or write it with Where",
    "Loop": "how often it turns is computed from the inputs; give the input that decides ({fix}), "
    "or export it with a fixed count and no condition",
    "Scan": "the size of what it scans is not known; give it with --axis, or export with fixed sizes",
}


def without_control_flow(
    model: onnx.ModelProto, folded: Callable[[onnx.ModelProto], onnx.ModelProto]
) -> onnx.ModelProto:
    """The model without If, Loop and Scan; folded: the model with what is constant folded.

    Raises UnsupportedError that names one whose course is not known.
    """
    while True:
        model = folded(model)
        nodes = {node.op_type: node for node in model.graph.node if node.op_type in _UNKNOWN}
        if not nodes:
            return model
        for node in model.graph.node:
            node.name = node.name or node.output[0]
        shapes = static_shapes(model) if "Scan" in nodes else {}
        if not (take_known_branches(model.graph) or unroll_known_loops(model, shapes)):
            for node in model.graph.node:  # what a branch behind detections depends on
                refuse_sized_by_values(node, node_name(node))
            op, node = next(iter(nodes.items()))
            raise UnsupportedError(f"{node_name(node)}: {_UNKNOWN[op].format(fix=_fix(model.graph, node))}")


def _fix(graph: onnx.GraphProto, node: onnx.NodeProto) -> str:
    """The option that decides the course of a node, as far as one input of one element does."""
    made = {o: n for n in graph.node for o in n.output}
    inputs = {i.name: i.type.tensor_type for i in graph.input}
    waiting, found = list(node.input[: 1 + (node.op_type == "Loop")]), set[str]()
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        found |= {name} & inputs.keys()
        waiting += made[name].input if name in made else ()
    if len(found) == 1:
        (name,) = found
        if all(d.dim_value == 1 for d in inputs[name].shape.dim):
            truth = inputs[name].elem_type == onnx.TensorProto.BOOL
            return f"--fix {name}=true or --fix {name}=false" if truth else f"--fix {name}=VALUE"
    return "--fix NAME=VALUE"
