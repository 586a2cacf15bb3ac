"""A step of a language model in numpy, again and again: what its caches hold goes from one to the next."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tvm

from hwptq.ir.caches import caches_of, given_outputs
from hwptq.ir.dataflow import shape_of

from .interpret import Interpreter, Observe


class Steps:
    """Evaluates a function, which gets its caches (hwptq/ir/caches.py) from the sample before; empty ones,
    zeros, at first and where the position is 0. A function without caches sees each sample alone."""

    def __init__(self, mod: tvm.IRModule, function: str | None = None):
        self._interpreter = Interpreter(mod, function)
        func = self._interpreter.func
        self._caches = caches_of(func)
        self._params = {str(p.name): p for p in func.params}
        names = list(self._params)
        self._held = {names[c.input]: c.output for c in self._caches.pairs} if self._caches else {}
        at = self._caches.position if self._caches else None
        self._position = None if at is None else names[at]
        self._now: dict[str, np.ndarray] = {}

    @property
    def alone(self) -> bool:
        """Whether it sees each sample alone."""
        return not self._held

    @property
    def held(self) -> dict[str, np.ndarray]:
        """What the caches hold, by the inputs that they are."""
        return dict(self._now)

    def whole(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All inputs of the next step."""
        begins = self._position is not None and not np.any(inputs[self._position])
        if begins or not self._now:
            of = {name: self._params[name] for name in self._held}
            self._now = {name: np.zeros(shape_of(p), str(p.ty.dtype)) for name, p in of.items()}
        every = {**inputs, **self._now}
        return {name: every[name] for name in self._params}

    def run(self, inputs: Mapping[str, np.ndarray], observe: Observe | None = None) -> list[np.ndarray]:
        """The outputs of the next step, without its caches; `observe` as in Interpreter.run."""
        outputs = self._interpreter.run(self.whole(inputs), observe)
        self._now = {name: outputs[i] for name, i in self._held.items()}
        return given_outputs(self._interpreter.func, outputs)
