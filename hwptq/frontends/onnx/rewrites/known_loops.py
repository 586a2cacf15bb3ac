"""Loop whose number of turns is known, as its turns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from ..weights.external_weights import array_of
from .counted_turns import counted_turns
from .surroundings import Surroundings, attribute
from .turns import Stack, Turns


def turns_of_loop(
    node: onnx.NodeProto, prefix: str, around: Surroundings, graph: onnx.GraphProto
) -> Turns | None:
    """The turns of a Loop, None where their number is not known; what they read goes to `graph`."""
    body = attribute(node, "body")
    count = _count(node, body, around)
    if count is None:
        return None
    carried = node.input[2:]
    true = f"{prefix}true"
    graph.initializer.append(numpy_helper.from_array(np.array(True), true))

    def arguments(turn: int, states: Sequence[str]) -> Sequence[str]:
        number = f"{prefix}{turn}"
        graph.initializer.append(numpy_helper.from_array(np.array(turn, np.int64), number))
        return [number, true, *states]

    stacks = [Stack()] * (len(body.output) - 1 - len(carried))
    return Turns(node, prefix, count, carried, 1, stacks, arguments)


def _count(node: onnx.NodeProto, body: onnx.GraphProto, around: Surroundings) -> int | None:
    """How often the body is run; None where that is not known."""
    most, condition = (*node.input, "", "")[:2]
    count, go = around.constant(most), around.constant(condition)
    if (most and count is None) or (condition and go is None):
        return None
    if go is not None and not go.all():
        return 0
    limit = None if count is None else max(int(count.item()), 0)
    return limit if limit is not None and _stays_true(body) else counted_turns(node, body, limit, around)


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
        held = attribute(made[name], "value")
    return held is not None and bool(array_of(held).all())
