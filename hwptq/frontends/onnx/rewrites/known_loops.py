"""Loop whose count is known and whose condition stays true: its body, once for each turn."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hwptq.errors import UnsupportedError

from .inlined import hoisted, inlined

#: Nodes that a loop may become.
_MOST = 20_000


def unroll_known_loops(model: onnx.ModelProto) -> bool:
    """Change a model in place; whether there was a Loop of a known number of turns.

    Raises UnsupportedError where its turns are too many nodes, or none that leaves something to stack.
    """
    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
    nodes: list[onnx.NodeProto] = []
    unrolled = False
    for number, node in enumerate(graph.node):
        turns = _turns(node, constants)
        if turns is None:
            nodes.append(node)
            continue
        unrolled = True
        nodes += _unrolled(node, turns, f"{node.name or node.output[0]}.{number}.", graph, opset)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return unrolled


def _body(node: onnx.NodeProto) -> onnx.GraphProto:
    return next(a.g for a in node.attribute if a.name == "body")


def _turns(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> int | None:
    """How often the body of a Loop is run; None where that is no Loop, or not known."""
    if node.op_type != "Loop":
        return None
    count, condition = (*node.input, "", "")[:2]
    if count not in constants or (condition and condition not in constants):
        return None
    if condition and not numpy_helper.to_array(constants[condition]).item():
        return 0
    return max(int(numpy_helper.to_array(constants[count]).item()), 0) if _stays_true(_body(node)) else None


def _stays_true(body: onnx.GraphProto) -> bool:
    """Whether the condition that a body gives is the one that it was given, or true."""
    made = {o: n for n in body.node for o in n.output}
    name = body.output[0].name
    while name in made and made[name].op_type in ("Identity", "Cast"):
        name = made[name].input[0]
    if name == body.input[1].name:
        return True
    held = next((t for t in body.initializer if t.name == name), None)
    if held is None and name in made and made[name].op_type == "Constant":
        held = next((a.t for a in made[name].attribute if a.name == "value"), None)
    return held is not None and bool(numpy_helper.to_array(held).all())


def _unrolled(
    node: onnx.NodeProto, turns: int, prefix: str, graph: onnx.GraphProto, opset: int
) -> list[onnx.NodeProto]:
    """The nodes of all turns, the results under the names of the outputs of `node`."""
    body, named = _body(node), f"node {node.name or node.output[0]!r} ({node.op_type})"
    if turns * len(body.node) > _MOST:
        raise UnsupportedError(
            f"{named}: its {turns} turns are {turns * len(body.node)} nodes, more than {_MOST}; "
            "export the model with fewer, or without the loop"
        )
    carried = list(node.input[2:])
    stacks = len(body.output) - 1 - len(carried)
    if stacks and not turns:
        raise UnsupportedError(f"{named}: it has no turn, and results that are one value a turn")
    names = hoisted(body, prefix, graph)
    true = f"{prefix}true"
    graph.initializer.append(numpy_helper.from_array(np.array(True), true))
    nodes: list[onnx.NodeProto] = []
    for turn in range(turns):
        number, inside = f"{prefix}{turn}", f"{prefix}{turn}."
        graph.initializer.append(numpy_helper.from_array(np.array(turn, np.int64), number))
        given = dict(zip((value.name for value in body.input), (number, true, *carried), strict=True))
        results = [f"{inside}result.{i}" for i in range(len(body.output))]
        nodes += inlined(body, inside, names | given, results, node.name, f".{turn}")
        carried = results[1 : 1 + len(carried)]
    for inner, outer in zip(carried, node.output, strict=False):
        if outer:
            nodes.append(helper.make_node("Identity", [inner], [outer], name=node.name))
    for i, outer in enumerate(node.output[len(carried) :]):
        place = 1 + len(carried) + i
        parts = [f"{prefix}{turn}.result.{place}" for turn in range(turns)]
        nodes += _stacked(parts, outer, f"{prefix}stack.{i}", node.name, graph, opset) if outer else []
    return nodes


def _stacked(
    parts: list[str], result: str, prefix: str, name: str, graph: onnx.GraphProto, opset: int
) -> list[onnx.NodeProto]:
    """The values of all turns along a new first axis."""
    axes: list[str] = []
    if opset >= 13:  # the axes of Unsqueeze have become an input
        axes = [f"{prefix}.axis"]
        graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), axes[0]))
    given = {} if axes else {"axes": [0]}
    rows = [f"{prefix}.{i}" for i in range(len(parts))]
    nodes = [
        helper.make_node("Unsqueeze", [part, *axes], [row], **given)
        for part, row in zip(parts, rows, strict=True)
    ]
    return [*nodes, helper.make_node("Concat", rows, [result], axis=0, name=name)]
