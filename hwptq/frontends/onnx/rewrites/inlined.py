"""The nodes of a graph inside of a node (a branch, the body of a loop) as nodes of the graph around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx


def hoisted(body: onnx.GraphProto, prefix: str, graph: onnx.GraphProto) -> dict[str, str]:
    """Add the constants of `body` to `graph`; returns their names there."""
    names = {}
    for tensor in body.initializer:
        copy = onnx.TensorProto()
        copy.CopyFrom(tensor)
        names[tensor.name] = copy.name = f"{prefix}{tensor.name}"
        graph.initializer.append(copy)
    return names


def unused_prefix(graph: onnx.GraphProto, name: str) -> str:
    """What begins the names of tensors that are added for a node of `graph`, and no other name in it."""
    taken = [t.name for t in graph.initializer] + [t for n in graph.node for t in (*n.input, *n.output)]
    prefix = f"{name}."
    while any(t.startswith(prefix) for t in taken):
        prefix += "_"
    return prefix


def inlined(
    body: onnx.GraphProto,
    prefix: str,
    outside: Mapping[str, str],
    outputs: Sequence[str],
    name: str,
    suffix: str = "",
) -> list[onnx.NodeProto]:
    """Copies of the nodes of `body`, its tensors with `prefix`, its results under the names `outputs`.

    outside: inputs and constants of the body -> their names outside; name: of the node that the body is in;
    suffix: tells the nodes of one copy from those of another.
    """
    made = [o for n in body.node for o in n.output if o]
    names = {o: f"{prefix}{o}" for o in made} | dict(outside)
    passed = []  # a constant, a tensor of outside, or a result that is given twice
    free = set(made)
    for value, outer in zip(body.output, outputs, strict=True):
        if value.name in free:
            names[value.name] = outer
            free.remove(value.name)
        else:
            passed.append((value.name, outer))
    nodes = []
    for inner in body.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(inner)
        _rename(copy, names)
        copy.name = (inner.name or copy.output[0]) + suffix
        nodes.append(copy)
    same = [onnx.helper.make_node("Identity", [names.get(i, i)], [o], name=name) for i, o in passed]
    return nodes + same


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Rename tensors of a node, in the graphs in it too, as far as these don't call others the same."""
    waiting = [(node, names)]
    while waiting:
        one, known = waiting.pop()
        one.input[:] = [known.get(i, i) for i in one.input]
        one.output[:] = [known.get(o, o) for o in one.output]
        for attribute in one.attribute:
            for inner in (attribute.g, *attribute.graphs):
                own = {o for n in inner.node for o in n.output} | {t.name for t in inner.initializer}
                own |= {value.name for value in inner.input}
                seen = {old: new for old, new in known.items() if old not in own}
                waiting += ((n, seen) for n in inner.node)
                for value in inner.output:
                    value.name = seen.get(value.name, value.name)
