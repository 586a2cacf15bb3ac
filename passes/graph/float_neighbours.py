"""Which nodes that could be quantized stay in float because of what stands around them.

Rounding to a few bits between operators in float loses resolution and saves nothing: a residual stream
between layer norms, a mask before a softmax, the weights of a norm behind its division.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import networkx as nx
from tvm import relax

from hwptq.ir.dataflow import data_of

#: Kinds that compute each element of their result from one of each operand.
ELEMENTWISE = ("lookup", "add", "mul")
_FREE = ("lookup", "data_movement", "concat", "resize")
_MOVED = ("data_movement", "resize")

Kinds = dict[Any, str | None]
Values = dict[Any, Any]
Readers = Mapping[Any, list[Any]]

ISLAND = "no operator beside it computes in integers"
READ_IN_FLOAT = "only operators in float read it"
MADE_IN_FLOAT = "its operands come from operators in float"


def kept_in_float(values: Values, kinds: Kinds, readers: Readers) -> dict[Any, str]:
    """The nodes of `kinds` that stay in float, with the reason."""
    left = dict(kinds)
    found: dict[Any, str] = {}
    for step in (_islands, _made_in_float, _last_softmax, _read_in_float):
        new = step(values, left, readers)
        found |= new
        left |= dict.fromkeys(new)
    return found


def _islands(values: Values, kinds: Kinds, readers: Readers) -> dict[Any, str]:
    """Tables and data movement where no node beside them computes in integers."""
    graph = nx.Graph()
    for var, value in values.items():
        if kinds[var] is not None:
            graph.add_node(var)
            graph.add_edges_from((var, a) for a in data_of(value) if kinds.get(a) is not None)
    free = [c for c in nx.connected_components(graph) if all(kinds[v] in _FREE for v in c)]
    return {v: ISLAND for c in free for v in c}


def _made_in_float(values: Values, kinds: Kinds, readers: Readers) -> dict[Any, str]:
    """Elementwise nodes whose operands are results of operators in float: what reads them rounds once."""
    left, found, moved = dict(kinds), {}, _moved(values, kinds)
    for var, value in values.items():
        operands = data_of(value) if left[var] in ELEMENTWISE else []
        if operands and all(in_float(values, left, moved.get(a, a)) for a in operands):
            found[var], left[var] = MADE_IN_FLOAT, None
    return found


def _moved(values: Values, kinds: Kinds) -> dict[Any, Any]:
    """What data movement moves, in one or several steps: its result -> that of another operator."""
    found: dict[Any, Any] = {}
    for var, value in values.items():
        if kinds[var] in _MOVED:
            source, *_ = data_of(value)  # others are indices
            found[var] = found.get(source, source)
    return found


def _last_softmax(values: Values, kinds: Kinds, readers: Readers) -> dict[Any, str]:
    """A softmax that the graph's user reads: steps of 1/256 would be too coarse for small probabilities."""

    def read_in_integers(var: Any) -> bool:
        users = [u for u in readers.get(var, []) if kinds.get(u) is not None]
        return any(kinds[u] not in _MOVED or read_in_integers(u) for u in users)

    last = [v for v in values if kinds[v] == "softmax" and not read_in_integers(v)]
    return dict.fromkeys(last, READ_IN_FLOAT)


def _read_in_float(values: Values, kinds: Kinds, readers: Readers) -> dict[Any, str]:
    """Elementwise nodes that only operators in float read, and the data movement between."""
    left, found = dict(kinds), {}
    sources = _moved(values, kinds)  # of which none changes before what it is moved to

    def moved(var: Any) -> list[Any] | None:
        """Data movement between `var` and its readers, where those are all in float; else None."""
        between, waiting = [], [var]
        while waiting:
            users = readers.get(waiting.pop(), [])
            moving = [user for user in users if left.get(user) in _MOVED]
            if not users or any(u not in moving and not in_float(values, left, u) for u in users):
                return None
            between += moving
            waiting += moving
        return between

    for var in reversed(values):
        if _gains_nothing(var, sources, values, left):
            between = moved(var)
            for v in [] if between is None else [var, *between]:
                left[v], found[v] = None, READ_IN_FLOAT
    return found


def _gains_nothing(var: Any, moved: Values, values: Values, kinds: Kinds) -> bool:
    """Whether integers save nothing before operators in float: elementwise nodes, and data movement that is
    fed with floats."""
    fed = kinds[var] in _MOVED and in_float(values, kinds, moved[var])
    return fed or kinds[var] in (*ELEMENTWISE, "embedding")


def in_float(values: Values, kinds: Mapping[Any, str | None], var: Any) -> bool:
    """Whether `var` is an operator that stays in float; neither an input of the graph nor its result is."""
    return isinstance(values.get(var), relax.Call) and kinds.get(var) is None
