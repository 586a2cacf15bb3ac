"""Which outputs of a step are which inputs with rows written into them: the caches of a language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tvm import relax

from hwptq.ir.caches import Cache, Caches, results
from hwptq.ir.dataflow import bindings, op_name, reads, shape_of
from hwptq.ir.movement import order_of_axes


def find_caches(func: Any) -> Caches | None:
    """The caches of a function, by structure: an output that is an input but for what is written into it.

    None where there are none. An input that is the source of two outputs, or an output that may come from two
    inputs, is no cache.
    """
    values = dict(bindings(func))
    sources: dict[Any, list[int]] = {}
    for i, result in enumerate(results(func)):
        for param in _written(result, values):
            sources.setdefault(param, []).append(i)
    found = {p: outputs[0] for p, outputs in sources.items() if len(outputs) == 1}
    once = [p for p in found if list(found.values()).count(found[p]) == 1]
    order = {p: i for i, p in enumerate(func.params)}
    pairs = tuple(Cache(order[p], found[p]) for p in sorted(once, key=order.__getitem__))
    if not pairs:
        return None
    writes = [_write(results(func)[cache.output], values) for cache in pairs]
    places = {p for where, _ in writes for p in _params_of(where, values)}
    context = min(rows for _, rows in writes)
    return Caches(pairs, _position(places, order), context)


def _written(result: Any, values: Mapping[Any, Any]) -> list[Any]:
    """The params that a result is, with something written into them, perhaps between two transposes."""
    return [
        param
        for param, order in _sources(result, values, tuple(range(len(shape_of(result)))), False)
        if order == tuple(range(len(order)))
        and shape_of(param) == shape_of(result)
        and param.ty.dtype == result.ty.dtype
    ]


def _sources(
    var: Any, values: Mapping[Any, Any], order: tuple[int, ...], written: bool
) -> list[tuple[Any, tuple[int, ...]]]:
    """Params that are `var` but for writes, and how their axes lie in it; `order`: how its own lie."""
    if not isinstance(var, relax.Var):
        return []
    if var not in values:
        return [(var, order)] if written else []
    value = values[var]
    if op_name(value) == "permute_dims":
        axes = order_of_axes(value)
        return _sources(value.args[0], values, tuple(axes[i] for i in order), written)
    if op_name(value) != "where":
        return []
    same = [a for a in value.args[1:] if shape_of(a) == shape_of(var)]
    return [found for a in same for found in _sources(a, values, order, True)]


def _write(result: Any, values: Mapping[Any, Any]) -> tuple[Any, int]:
    """What says where a result is written, and how many places there are."""
    while op_name(values[result]) == "permute_dims":
        result = values[result].args[0]
    where, shape = values[result].args[0], shape_of(result)
    told = shape_of(where)
    varying = [n for n, rows in zip(told[::-1], shape[::-1], strict=False) if n == rows and n > 1]
    return where, max(varying, default=1)


def _params_of(where: Any, values: Mapping[Any, Any]) -> set[Any]:
    """The params that a tensor is computed from."""
    found, waiting = set(), [where]
    while waiting:
        var = waiting.pop()
        if not isinstance(var, relax.Var) or var in found:
            continue
        found.add(var)
        waiting += reads(values[var]) if var in values else []
    return {var for var in found if var not in values}


def _position(places: set[Any], order: Mapping[Any, int]) -> int | None:
    """The one param of a single integer among those that say where rows are written."""
    one = [p for p in places if np.prod(shape_of(p)) == 1 and str(p.ty.dtype).startswith("int")]
    return order[one[0]] if len(one) == 1 and len(places) == 1 else None
