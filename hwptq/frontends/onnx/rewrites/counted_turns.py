"""How often a Loop turns whose condition follows from known values alone, as where a while loop counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from .random_operators import RANDOM
from .surroundings import Surroundings

_MOST_TURNS = 10_000


def counted_turns(
    node: onnx.NodeProto, body: onnx.GraphProto, most: int | None, around: Surroundings
) -> int | None:
    """The turns of a Loop until its condition fails, at most `most`; None where the condition, or a state
    that it follows from, is computed from what is not known. The condition is true at first.
    """
    part = _part(body, around.constant)
    if part is None:
        return None
    nodes, states, held = part
    values: dict[str, np.ndarray] = {}
    for i in states:
        start = around.constant(node.input[2 + i])
        if start is None:
            return None
        values[body.input[2 + i].name] = start
    results = [body.output[0].name, *(body.output[1 + i].name for i in states)]
    step = _evaluator(nodes, [*values, body.input[0].name, body.input[1].name, *held], results, around.opset)
    go = np.array(True)
    for turn in range(_MOST_TURNS if most is None else min(most, _MOST_TURNS)):
        given = {**values, **held, body.input[0].name: np.array(turn, np.int64), body.input[1].name: go}
        try:
            go, *new = step(given)
        except Exception:  # what the evaluator does not know, nobody knows here
            return None
        values = dict(zip(values, new, strict=True))
        if not go.all():
            return turn + 1
    return most if most is not None and most <= _MOST_TURNS else None


def _part(
    body: onnx.GraphProto, constant: Callable[[str], np.ndarray | None]
) -> tuple[list[onnx.NodeProto], list[int], dict[str, np.ndarray]] | None:
    """(nodes, numbers of states, constants) that the condition follows from, in one turn or the next."""
    made = {o: n for n in body.node for o in n.output if o}
    places = {value.name: i - 2 for i, value in enumerate(body.input)}
    own = {t.name: onnx.numpy_helper.to_array(t) for t in body.initializer}
    seen, waiting = set[str](), [body.output[0].name]
    states, held = set[int](), dict[str, np.ndarray]()
    while waiting:
        name = waiting.pop()
        if not name or name in seen:
            continue
        seen.add(name)
        if name in made:
            branches = any(a.type in (a.GRAPH, a.GRAPHS) for a in made[name].attribute)
            if branches or made[name].op_type in RANDOM:
                return None
            waiting += made[name].input
        elif name in places:
            if places[name] >= 0:
                states.add(places[name])
                waiting.append(body.output[1 + places[name]].name)
        else:
            value = own.get(name) if name in own else constant(name)
            if value is None:
                return None
            held[name] = value
    nodes = [n for n in body.node if not seen.isdisjoint(n.output)]
    return nodes, sorted(states), held


def _evaluator(
    nodes: Sequence[onnx.NodeProto], given: Sequence[str], results: Sequence[str], opset: int
) -> Callable[[dict[str, np.ndarray]], Sequence[np.ndarray]]:
    inputs = [onnx.ValueInfoProto(name=name) for name in given]
    outputs = [onnx.ValueInfoProto(name=name) for name in results]
    graph = helper.make_graph(list(nodes), "condition", inputs, outputs)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    evaluator = ReferenceEvaluator(proto)
    return lambda values: evaluator.run(None, values)
