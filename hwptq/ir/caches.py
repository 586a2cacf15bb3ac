"""Caches: inputs of a step that are outputs of the step before it. An attribute of a function says which."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tvm import relax

from .dataflow import bindings

_ATTRIBUTE = "hwptq.caches"


@dataclass(frozen=True)
class Cache:
    """The input (by its index among the parameters) that holds what an output (by its index) gave."""

    input: int
    output: int


@dataclass(frozen=True)
class Caches:
    """Those of a function. position: the index of the input of one integer that says which rows of them a
    step writes, 0 where a text begins, or None; context: the most rows that they hold."""

    pairs: tuple[Cache, ...]
    position: int | None
    context: int

    @property
    def inputs(self) -> dict[int, Cache]:
        """By their inputs."""
        return {cache.input: cache for cache in self.pairs}

    @property
    def outputs(self) -> dict[int, Cache]:
        """By their outputs."""
        return {cache.output: cache for cache in self.pairs}


def caches_of(func: Any) -> Caches | None:
    """What the attribute of a function says; None where it has no caches."""
    if not func.attrs or _ATTRIBUTE not in func.attrs:
        return None
    found = json.loads(str(func.attrs[_ATTRIBUTE]))
    return Caches(tuple(Cache(**pair) for pair in found["pairs"]), found["position"], found["context"])


def with_caches(func: Any, caches: Caches | None) -> Any:
    """The function with that attribute, or without it."""
    if caches is None:
        return func.without_attr(_ATTRIBUTE) if caches_of(func) else func
    return func.with_attr(_ATTRIBUTE, json.dumps(asdict(caches)))


def results(func: Any) -> tuple[Any, ...]:
    """What a function gives, output by output."""
    values = dict(bindings(func))

    def source(var: Any) -> Any:
        """The var, or the tuple, that it is another name of."""
        while isinstance(values.get(var), relax.Var | relax.Tuple):
            var = values[var]
        return var

    found = source(func.body.body)
    return tuple(map(source, found.fields if isinstance(found, relax.Tuple) else (found,)))


def fed_inputs(func: Any, inputs: Sequence[Any]) -> list[Any]:
    """Of one thing for each input, those that a caller gives."""
    held = caches_of(func)
    return [x for i, x in enumerate(inputs) if held is None or i not in held.inputs]


def given_outputs(func: Any, outputs: Sequence[Any]) -> list[Any]:
    """Of one thing for each output, those that a caller gets."""
    held = caches_of(func)
    return [x for i, x in enumerate(outputs) if held is None or i not in held.outputs]
