"""Tells which node of the file every binding of an imported module comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import tvm
from tvm import relax

from hwptq.ir.dataflow import bindings, main_functions, op_name, rewrite
from hwptq.ir.provenance import Origin, origin_of

#: Operators that may be followed by the addition of a bias.
_HEADS = ("nn.conv2d", "nn.conv2d_transpose", "matmul")


def with_node_origins(mod: tvm.IRModule, results: Mapping[Any, Origin]) -> tvm.IRModule:
    """A module whose bindings have the origin of their node. results: vars that the importer knows to be the
    outputs of nodes; what is bound between those of two nodes are steps of the latter.

    A node that became one of _HEADS and an addition: the head is its output, not the addition, which passes
    join to it again.
    """
    found: dict[Any, Origin] = {}
    for _, func in main_functions(mod):
        found |= _of_function(func, results)

    def visit(r: Any, var: Any, value: Any) -> Any:
        kept = r.keep(value)
        return r.emit(kept, found.get(var)) if isinstance(kept, relax.Call | relax.TupleGetItem) else kept

    return rewrite(mod, visit)


def _of_function(func: Any, results: Mapping[Any, Origin]) -> dict[Any, Origin]:
    found: dict[Any, Origin] = {}
    steps: list[tuple[Any, Any]] = []  # of the node whose output comes next
    for var, value in bindings(func):
        origin = origin_of(value) or results.get(var)
        if isinstance(value, relax.TupleGetItem) and value.tuple_value in found:
            origin = replace(found[value.tuple_value], output=int(value.index), step=0)
        if origin is None:
            steps.append((var, value))
            continue
        head = value.args[0] if op_name(value) == "add" else None
        is_head = op_name(dict(steps).get(head)) in _HEADS
        way = [v for v, _ in steps if not (is_head and v == head)]
        found |= {v: replace(origin, step=number) for number, v in enumerate(way, 1)}
        found[var] = replace(origin, step=len(way) + 1) if is_head else origin
        if is_head:
            found[head] = origin
        steps = []
    return found
