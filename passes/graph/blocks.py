"""Blocks of a function: stretches between tensors that all behind depends on, such as residual streams."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any

from hwptq.ir.dataflow import bindings, reads


@dataclass(frozen=True)
class Block:
    """Bindings from behind `start` (None: from the inputs) to that of `end`, with at least one layer.

    steps: those that depend on something rounded. Whatever else they read, `beside` says how to compute.
    """

    start: Any
    end: Any
    steps: tuple[tuple[Any, Any], ...]
    layers: tuple[Any, ...]


def blocks(func: Any, rounded: Set[Any], layers: Set[Any]) -> list[Block]:
    """The shortest blocks of a function, in its order; what lies behind the last layer belongs to none.
    Tensors that nothing rounded touches go past an end: they are known exactly.

    rounded: vars of all that has rounded weights, look-ups too; layers: those that blocks are made for.
    """
    order = bindings(func)
    last: dict[Any, int] = {source: i for i, (_, value) in enumerate(order) for source in reads(value)}
    last |= {source: len(order) for source in _results(func)}
    touched = _touched(order, rounded)
    found: list[Block] = []
    start: Any = None
    steps: list[tuple[Any, Any]] = []
    live: set[Any] = set()
    for i, (var, value) in enumerate(order):
        if var not in touched:
            continue
        steps.append((var, value))
        live = {v for v in {*live, var} if last.get(v, -1) > i}
        inside = tuple(v for v, _ in steps if v in layers)
        if live == {var} and inside and _is_real(var):
            found.append(Block(start, var, tuple(steps), inside))
            start, steps = var, []
    return found


def dependent(func: Any, rounded: Set[Any]) -> list[tuple[Any, Any]]:
    """The bindings that depend on something rounded."""
    order = bindings(func)
    touched = _touched(order, rounded)
    return [(var, value) for var, value in order if var in touched]


def beside(func: Any, rounded: Set[Any]) -> list[tuple[Any, Any]]:
    """The bindings that depend on nothing rounded, but are read by what does."""
    order = bindings(func)
    touched = _touched(order, rounded)
    wanted = {source for var, value in order if var in touched for source in reads(value)}
    found = []
    for var, value in reversed(order):
        if var not in touched and var in wanted:
            wanted |= set(reads(value))
            found.append((var, value))
    return found[::-1]


def _touched(order: list[tuple[Any, Any]], rounded: Set[Any]) -> set[Any]:
    found: set[Any] = set()
    for var, value in order:
        if var in rounded or any(source in found for source in reads(value)):
            found.add(var)
    return found


def _is_real(var: Any) -> bool:
    """Whether a var is a float tensor, and no tuple."""
    return str(getattr(var.ty, "dtype", "")) == "float32"


def _results(func: Any) -> Iterator[Any]:
    body = func.body.body
    yield from body.fields if hasattr(body, "fields") else [body]
