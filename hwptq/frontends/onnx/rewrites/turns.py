"""The body of a loop, once for each of its turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hwptq.errors import UnsupportedError

from .inlined import hoisted, inlined
from .surroundings import attribute

#: Nodes that a loop may become.
_MOST = 20_000
#: What tells names that the body has from those that are added.
_OF_BODY = "body."


@dataclass(frozen=True)
class Stack:
    """How one value a turn becomes one tensor: along a new axis, the last turn first if `backwards`."""

    axis: int = 0
    backwards: bool = False


@dataclass(frozen=True)
class Turns:
    """A node that runs its body a known number of times.

    carried: the states that the first turn gets; passed_over: results of the body before the states of the
    next turn, and behind these stand those that are stacked; arguments: (turn, states) -> the inputs of the
    body.
    """

    node: onnx.NodeProto
    prefix: str  # of the names of all that is written
    count: int
    carried: Sequence[str]
    passed_over: int
    stacks: Sequence[Stack]
    arguments: Callable[[int, Sequence[str]], Sequence[str]]


def written_out(turns: Turns, graph: onnx.GraphProto, opset: int) -> list[onnx.NodeProto]:
    """The nodes of all turns, which give the outputs of the node; constants go to `graph`.

    Raises UnsupportedError where turns are too many nodes, or none that leaves something to stack.
    """
    body, name = attribute(turns.node, "body"), turns.node.name
    check_count(turns.node, turns.count)
    if turns.stacks and not turns.count:
        raise UnsupportedError(f"{_said(turns.node)}: it has no turn, and results of one value a turn")
    names = hoisted(body, f"{turns.prefix}{_OF_BODY}", graph)
    nodes: list[onnx.NodeProto] = []
    states, first = list(turns.carried), turns.passed_over
    for turn in range(turns.count):
        inside = f"{turns.prefix}{turn}.{_OF_BODY}"
        arguments = turns.arguments(turn, states)
        given = dict(zip((value.name for value in body.input), arguments, strict=True))
        results = [_result(turns.prefix, turn, i) for i in range(len(body.output))]
        nodes += inlined(body, inside, names | given, results, name, f".{turn}")
        states = results[first : first + len(states)]
    for inner, outer in zip(states, turns.node.output, strict=False):
        if outer:
            nodes.append(helper.make_node("Identity", [inner], [outer], name=name))
    for i, (stack, outer) in enumerate(zip(turns.stacks, turns.node.output[len(states) :], strict=False)):
        parts = [_result(turns.prefix, turn, first + len(states) + i) for turn in range(turns.count)]
        if outer:
            nodes += _stacked(stack, parts, outer, f"{turns.prefix}stack.{i}", name, graph, opset)
    return nodes


def check_count(node: onnx.NodeProto, count: int) -> None:
    """Raise UnsupportedError where the turns of a node are too many to be written out."""
    nodes = count * len(attribute(node, "body").node)
    if nodes > _MOST:
        raise UnsupportedError(
            f"{_said(node)}: its {count} turns are {nodes} nodes, more than {_MOST}; export the model "
            f"with fewer, or without the loop"
        )


def _said(node: onnx.NodeProto) -> str:
    return f"node {node.name!r} ({node.op_type})"


def _result(prefix: str, turn: int, place: int) -> str:
    """The name of what the body gives at a place in a turn."""
    return f"{prefix}{turn}.result.{place}"


def _stacked(
    stack: Stack,
    parts: Sequence[str],
    result: str,
    prefix: str,
    name: str,
    graph: onnx.GraphProto,
    opset: int,
) -> list[onnx.NodeProto]:
    """The values of all turns along a new axis."""
    axes: list[str] = []
    if opset >= 13:  # the axes of Unsqueeze have become an input
        axes = [f"{prefix}.axis"]
        graph.initializer.append(numpy_helper.from_array(np.array([stack.axis], np.int64), axes[0]))
    given = {} if axes else {"axes": [stack.axis]}
    rows = [f"{prefix}.{i}" for i in range(len(parts))]
    nodes = [
        helper.make_node("Unsqueeze", [part, *axes], [row], **given)
        for part, row in zip(parts, rows, strict=True)
    ]
    rows = rows[::-1] if stack.backwards else rows
    return [*nodes, helper.make_node("Concat", rows, [result], axis=stack.axis, name=name)]
