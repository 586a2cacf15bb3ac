"""If of a condition that is known: the nodes of its branch."""

from __future__ import annotations

import onnx
from onnx import numpy_helper


def take_known_branches(graph: onnx.GraphProto) -> bool:
    """Change a graph in place; whether there was an If of a constant condition."""
    constants = {t.name: t for t in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    taken = False
    for number, node in enumerate(graph.node):
        if node.op_type != "If" or node.input[0] not in constants:
            nodes.append(node)
            continue
        taken = True
        condition = numpy_helper.to_array(constants[node.input[0]])
        wanted = "then_branch" if condition.item() else "else_branch"
        branch = next(a.g for a in node.attribute if a.name == wanted)
        nodes += _body(node, branch, f"{node.name or node.output[0]}.{number}.", graph)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return taken


def _body(
    node: onnx.NodeProto, branch: onnx.GraphProto, prefix: str, graph: onnx.GraphProto
) -> list[onnx.NodeProto]:
    """The nodes of a branch, its own tensors under names of their own, its results under those of `node`."""
    own = {t.name for t in branch.initializer} | {o for n in branch.node for o in n.output if o}
    names = {name: f"{prefix}{name}" for name in own}
    results = dict(zip((value.name for value in branch.output), node.output, strict=True))
    made = {o for n in branch.node for o in n.output}
    names |= {inner: outer for inner, outer in results.items() if inner in made}
    for tensor in branch.initializer:
        copy = onnx.TensorProto()
        copy.CopyFrom(tensor)
        copy.name = names[tensor.name]
        graph.initializer.append(copy)
    nodes = []
    for inner in branch.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(inner)
        _rename(copy, names)
        copy.name = inner.name or copy.output[0]
        nodes.append(copy)
    passed = [(i, o) for i, o in results.items() if i not in made]  # a constant, or a tensor of outside
    return nodes + [
        onnx.helper.make_node("Identity", [names.get(i, i)], [o], name=node.name) for i, o in passed
    ]


def _rename(node: onnx.NodeProto, names: dict[str, str]) -> None:
    """Rename tensors of a node, in the branches in it too."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        one.input[:] = [names.get(i, i) for i in one.input]
        one.output[:] = [names.get(o, o) for o in one.output]
        for attribute in one.attribute:
            for inner in (attribute.g, *attribute.graphs):
                waiting += inner.node
                for value in inner.output:
                    value.name = names.get(value.name, value.name)
