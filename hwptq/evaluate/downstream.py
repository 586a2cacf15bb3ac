"""A float network of which one tensor is changed: only what depends on it is evaluated again."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
import tvm
from tvm import relax

from hwptq.cores import own_cores
from hwptq.ir.dataflow import bindings, reads

from .interpret import Interpreter

Bench = TypeVar("Bench")
Item = TypeVar("Item")
Result = TypeVar("Result")
#: (var, its expression, values of the vars before) -> what is to stand for its value.
Change = Callable[[Any, Any, Mapping[Any, Any]], Any]


class Network:
    """A function of a module, the only one if not named, to be evaluated with changes. For one thread."""

    def __init__(self, mod: tvm.IRModule, function: str | None = None):
        self.interpreter = Interpreter(mod, function)
        self.params = list(self.interpreter.func.params)
        self.order = bindings(self.interpreter.func)
        self.expressions = dict(self.order)
        self._result = self.interpreter.func.body.body
        self._behind: dict[Any, list[tuple[Any, Any]]] = {}

    def values(self, inputs: Mapping[str, np.ndarray], change: Change | None = None) -> dict[Any, Any]:
        """The value of every var; with `change`, that of bindings and parameters (without an expression) as
        it says."""
        env: dict[Any, Any] = {}
        for param in self.params:
            env[param] = inputs[str(param.name)]
            if change:
                env[param] = change(param, None, env)
        for var, value in self.order:
            env[var] = change(var, value, env) if change else self.interpreter.evaluate(value, env)
        return env

    def outputs(self, env: Mapping[Any, Any]) -> list[np.ndarray]:
        """What the function yields where its vars have these values."""
        fields = self._result.fields if isinstance(self._result, relax.Tuple) else [self._result]
        values = [env[f] for f in fields]
        return list(values[0]) if len(values) == 1 and isinstance(values[0], tuple) else values

    def outputs_with(self, env: Mapping[Any, Any], var: Any, value: Any) -> list[np.ndarray]:
        """The outputs where `var` has another value than in `env`, and all else is computed exactly."""
        return self.outputs(self.values_with(env, var, value))

    def values_with(self, env: Mapping[Any, Any], var: Any, value: Any) -> Mapping[Any, Any]:
        """The values of all vars there."""
        changed = {var: value}
        both = ChainMap(changed, env)  # type: ignore[arg-type]
        for other, expression in self._after(var):
            changed[other] = self.interpreter.evaluate(expression, both)
        return both

    def outputs_where(
        self, env: Mapping[Any, Any], calls: Mapping[Any, Any], given: Mapping[Any, Any]
    ) -> list[np.ndarray]:
        """The outputs where bindings have other expressions, `calls` by var, that may read `given` values."""
        changed = dict(given)
        both = ChainMap(changed, env)  # type: ignore[arg-type]
        behind = {var for changed_var in calls for var, _ in self._after(changed_var)}
        for other, expression in self.order:
            if other in behind or other in calls:
                changed[other] = self.interpreter.evaluate(calls.get(other, expression), both)
        return self.outputs(both)

    def _after(self, var: Any) -> list[tuple[Any, Any]]:
        """The bindings that depend on `var`."""
        if var not in self._behind:
            found, dirty = [], {var}
            for other, value in self.order:
                if not dirty.isdisjoint(reads(value)):
                    dirty.add(other)
                    found.append((other, value))
            self._behind[var] = found
        return self._behind[var]


def on_threads(
    make: Callable[[], Bench], work: Callable[[Bench, Item], Result], items: Sequence[Item]
) -> Iterator[Result]:
    """work(bench, item) of every item, in their order, on all cores; each thread has a bench of its own."""
    workers = max(1, min(own_cores(), len(items)))
    idle: SimpleQueue[Bench] = SimpleQueue()
    for _ in range(workers):
        idle.put(make())

    def run(item: Item) -> Result:
        bench = idle.get()
        try:
            return work(bench, item)
        finally:
            idle.put(bench)

    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(run, items)
