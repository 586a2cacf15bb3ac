"""Tokens that a mask hides, such as padding: no output depends on what stands there.

Found by experiment, not by structure. An input of zeros and ones is a mask if the tokens where it is 0 may be
others without one bit of any output changing; where a tensor holds them is where its values change then. What
a model makes of padding may be as large as anything else, and short texts are padding for the most part, so
that ranges and roundings are taken from the tokens that are shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, tee
from typing import Any

import numpy as np
import tvm

from hwptq.ir.dataflow import bindings, entry_functions, shape_of
from hwptq.ir.provenance import Origin, origins

from .interpret import Interpreter, Observe
from .lockstep import Lockstep

Inputs = Mapping[str, np.ndarray]
#: Samples that are looked at for one in which a mask hides something.
SEARCHED = 16


@dataclass(frozen=True)
class HiddenTokens:
    """mask: the input that is 0 where a token is hidden; axes: where tensors have their tokens, by function
    and label."""

    mask: str
    axes: Mapping[tuple[str, str], tuple[int, ...]]

    def shown(self, sample: Inputs) -> np.ndarray:
        """bool [tokens]; all of them where a mask would hide everything."""
        found = np.asarray(sample[self.mask]).reshape(-1) != 0
        return found if found.any() else ~found

    def rows(self, function: str, label: str, sample: Inputs) -> np.ndarray | None:
        """Which rows of what a layer gives count; None: all."""
        return self.shown(sample) if (function, label) in self.axes else None

    def without(self, function: str, label: str, value: np.ndarray, sample: Inputs) -> np.ndarray:
        """A tensor with the tokens that are shown alone."""
        axes = self.axes.get((function, label))
        return _without(value, axes, self.shown(sample)) if axes else value

    def watching(self, sample: Inputs, observe: Observe) -> Observe:
        """An observer that is shown tensors without what is hidden."""

        def shown(function: str, origin: Origin, value: np.ndarray) -> None:
            observe(function, origin, self.without(function, origin.label, value, sample))

        return shown


def hidden_tokens(mod: tvm.IRModule, samples: Iterable[Inputs]) -> HiddenTokens | None:
    """Those of a float module of one function, by the first samples; None where nothing is hidden."""
    functions = entry_functions(mod)
    if len(functions) != 1:
        return None
    func = mod[functions[0]]
    names = [str(p.name) for p in func.params]
    masks = [str(p.name) for p in func.params if len(shape_of(p)) == 2 and shape_of(p)[0] == 1]
    if len(names) < 2 or not masks:
        return None
    for sample in islice(samples, SEARCHED):
        for mask in masks if set(names) <= sample.keys() else ():
            other = _altered(sample, names, mask)
            if other is None:
                continue
            axes = _axes(Interpreter(mod, functions[0]), sample, other, _is_hidden(sample[mask]))
            if axes is not None:
                return HiddenTokens(mask, {(functions[0], label): along for label, along in axes.items()})
    return None


def hidden_in(mod: tvm.IRModule, samples: Iterable[Any]) -> tuple[HiddenTokens | None, Iterator[Any]]:
    """The same, and all of the samples, of which no more are read than it takes."""
    first, rest = tee(samples)
    return hidden_tokens(mod, first), rest


def _is_hidden(mask: np.ndarray) -> np.ndarray:
    return np.asarray(np.asarray(mask).reshape(-1) == 0)


def _altered(sample: Inputs, names: list[str], mask: str) -> dict[str, np.ndarray] | None:
    """The sample with other tokens where `mask` is 0; None where it is no mask, or nothing changes."""
    values = np.asarray(sample[mask])
    if set(np.unique(values)) != {0, 1}:
        return None
    hidden, out, changed = _is_hidden(values), dict(sample), False
    for name in names:
        x = np.asarray(sample[name])
        if name == mask or x.shape[:2] != values.shape or np.array_equal(x, values):
            continue
        shown = x[:, ~hidden]
        out[name] = x.copy()
        out[name][:, hidden] = np.take(shown, np.arange(hidden.sum()) % shown.shape[1], axis=1)
        changed = changed or not np.array_equal(out[name], x)
    return out if changed else None


def _axes(
    interpreter: Interpreter, sample: Inputs, other: Inputs, hidden: np.ndarray
) -> dict[str, tuple[int, ...]] | None:  # fmt: skip
    """The axes of the tokens of each tensor by its label; None where an output is another."""
    named, both = origins(interpreter.func), _Both(interpreter, sample, other)
    outputs = set(_outputs(interpreter.func))
    axes: dict[str, tuple[int, ...]] = {}
    for var, first, second in both:
        if not isinstance(first, np.ndarray) or first.shape != np.shape(second):
            continue
        changed = np.asarray(first != second)
        if var in outputs and changed.any():
            return None
        along = _along(changed, hidden)
        if along:
            axes[named[var].label] = along
    return axes or None


def _along(changed: np.ndarray, hidden: np.ndarray) -> tuple[int, ...]:
    """The axes of tokens: the only one along which nothing but hidden tokens changed, or all of their length
    together, as of the scores of an attention."""
    long = [axis for axis, size in enumerate(changed.shape) if size == len(hidden)]
    if not changed.any():
        return ()
    alone = [axis for axis in long if not _without(changed, (axis,), ~hidden).any()]
    if not alone and not _without(changed, long, ~hidden).any():
        return tuple(long)
    return tuple(alone) if len(alone) == 1 else ()


def _without(value: np.ndarray, axes: Iterable[int], shown: np.ndarray) -> np.ndarray:
    """The tokens that are shown."""
    for axis in axes:
        value = value.compress(shown, axis)
    return value


def _outputs(func: Any) -> list[Any]:
    result = func.body.body
    return list(result.fields) if hasattr(result, "fields") else [result]


class _Both:
    """The values of two samples, var by var; memory holds one cut of the graph."""

    def __init__(self, interpreter: Interpreter, *samples: Inputs):
        self._walk = Lockstep(interpreter.mod, [dict(s) for s in samples], interpreter.name)

    def __iter__(self) -> Iterator[tuple[Any, Any, Any]]:
        walk = self._walk
        for param in walk.interpreter.func.params:
            yield param, *(env[param] for env in walk.values)
        for var, value in bindings(walk.interpreter.func):
            results = [walk.interpreter.evaluate(value, env) for env in walk.values]
            yield var, *results
            walk.settle(results)
