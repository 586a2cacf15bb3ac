"""If of a condition that is known: the nodes of its branch."""

from __future__ import annotations

import onnx

from ..weights.external_weights import array_of
from .inlined import hoisted, inlined, unused_prefix


def take_known_branches(graph: onnx.GraphProto) -> bool:
    """Change a graph in place; whether there was an If of a constant condition. Nodes have names."""
    constants = {t.name: t for t in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    taken = False
    for node in graph.node:
        if node.op_type != "If" or node.input[0] not in constants:
            nodes.append(node)
            continue
        taken = True
        condition = array_of(constants[node.input[0]])
        wanted = "then_branch" if condition.item() else "else_branch"
        branch = next(a.g for a in node.attribute if a.name == wanted)
        prefix = unused_prefix(graph, node.name)
        names = hoisted(branch, prefix, graph)
        nodes += inlined(branch, prefix, names, node.output, node.name)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return taken
