"""A fixed input may choose a branch of the whole graph, as of a decoder whose two steps are one file.

Then the model is that branch: before anything looks for caches in it, with the inputs that it reads, without
the outputs that it leaves empty for another branch to fill.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from hwptq.notices import Warning

from .fold_shapes import static_shapes, with_inputs
from .rewrites.known_branches import take_known_branches

Shapes = dict[str, tuple[int, ...]]


def choose_branches(
    proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Shapes, list[Warning]]:
    """Change a model in place; the shapes of the inputs that are left, and what its user should know."""
    graph, left = proto.graph, dict(shapes)
    if not any(node.op_type == "If" for node in graph.node):
        return left, []
    before = _read(graph)
    for node in graph.node:
        node.name = node.name or node.output[0]
    if not take_known_branches(graph):
        return left, []
    while take_known_branches(graph):
        pass
    unread = before - _read(graph)
    for value in [i for i in graph.input if i.name in unread]:
        graph.input.remove(value)
        left.pop(value.name, None)
    known = static_shapes(with_inputs(proto, left))
    empty = [o for o in graph.output if 0 in known.get(o.name, ())]
    if len(empty) == len(graph.output):
        return left, []
    for value in empty:
        graph.output.remove(value)
    names = ", ".join(o.name for o in empty)
    text = f"empty in the branch that a fixed input chooses, and left out: {names}"
    return left, [Warning("import", empty[0].name, text)] if empty else []


def _read(graph: onnx.GraphProto) -> set[str]:
    """The tensors that nodes read, those in branches too, and outputs."""
    found, waiting = {o.name for o in graph.output}, list(graph.node)
    while waiting:
        node = waiting.pop()
        found |= set(node.input)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                found |= {o.name for o in inner.output}
                waiting += inner.node
    return found
