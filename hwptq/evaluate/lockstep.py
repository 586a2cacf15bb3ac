"""Evaluates a function on several samples at once, binding by binding: memory holds one cut of the graph.

For passes that settle a layer's constants before anything behind the layer is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import tvm

from hwptq.ir.dataflow import bindings, reads

from .interpret import Interpreter


class Lockstep:
    """The values of every sample at one place of a function; those that nobody reads any more are dropped."""

    def __init__(
        self, mod: tvm.IRModule, samples: Sequence[dict[str, np.ndarray]], function: str | None = None
    ):
        self.interpreter = Interpreter(mod, function)
        self.mod, self._func = mod, self.interpreter.func
        self._bindings = bindings(self._func)
        self._last = {source: i for i, (_, value) in enumerate(self._bindings) for source in reads(value)}
        self._next = 0
        self.values: list[dict[Any, Any]] = [
            {p: inputs[str(p.name)] for p in self._func.params} for inputs in samples
        ]

    def run_to(self, stop: Any) -> None:
        """Evaluate every binding before that of `stop`."""
        while self._bindings[self._next][0] != stop:
            value = self._bindings[self._next][1]
            self.settle([self.interpreter.evaluate(value, env) for env in self.values])

    def settle(self, results: Sequence[Any]) -> None:
        """Go past the next binding, whose value for each sample is given."""
        var, value = self._bindings[self._next]
        dead = [source for source in reads(value) if self._last[source] == self._next]
        for env, result in zip(self.values, results, strict=True):
            env[var] = result
            for source in dead:
                env.pop(source, None)
            if var not in self._last:
                del env[var]
        self._next += 1


def live_bytes(func: Any) -> int:
    """The most that one sample's values take at any cut of `func`, in bytes, views counted as copies."""
    found = bindings(func)
    last = {source: i for i, (_, value) in enumerate(found) for source in reads(value)}
    live = {p: value_bytes(p) for p in func.params}
    most = sum(live.values())
    for i, (var, value) in enumerate(found):
        live[var] = value_bytes(var)
        most = max(most, sum(live.values()))
        for source in [*reads(value), var]:
            if last.get(source, i) <= i:
                live.pop(source, None)
    return most


def value_bytes(var: Any) -> int:
    """Those of the value of a var; 0 for a tuple."""
    try:
        return prod(int(d) for d in var.ty.shape.values) * np.dtype(str(var.ty.dtype)).itemsize
    except AttributeError:  # a tuple: its parts are counted where they are taken out
        return 0
