"""A quantized model in float, with the rounding of chosen places and parts switched on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tvm

from hwptq.evaluate.downstream import Network
from hwptq.evaluate.interpret import Interpreter
from hwptq.ir.dataflow import reads

from .places import Part, Place


class Simulation:
    """The module `float32`, and `places` of it where something may be lost. For one thread."""

    def __init__(self, float32: tvm.IRModule, places: Sequence[Place]):
        self._network = Network(float32)
        self._places = {p.var: p for p in places}
        modules = [p.layer.module for p in places if p.layer]
        self._layers = {mod: Interpreter(mod) for mod in modules}
        self._values = dict(self._network.order)

    def exact(self, inputs: Mapping[str, np.ndarray]) -> dict[Any, Any]:
        """The value of every tensor of the float network, by var."""
        return self._network.values(inputs)

    def outputs(self, env: Mapping[Any, Any]) -> list[np.ndarray]:
        """The outputs where the tensors have these values."""
        return self._network.outputs(env)

    def rounded(
        self, inputs: Mapping[str, np.ndarray], parts: Part, spared: Collection[Place] = ()
    ) -> list[np.ndarray]:
        """The outputs where `parts` are lost at every place but those that are `spared`."""
        kept = {p.var for p in spared}

        def change(var: Any, value: Any, env: Mapping[Any, Any]) -> Any:
            if var in self._places and var not in kept:
                return self._at(self._places[var], env, parts)
            return env[var] if value is None else self._network.interpreter.evaluate(value, env)

        return self._network.outputs(self._network.values(inputs, change))

    def alone(self, place: Place, env: Mapping[Any, Any], parts: Part) -> tuple[Any, list[np.ndarray]]:
        """(what the node yields, the outputs) where `parts` are lost at one place of a network that else has
        the exact values `env`."""
        value = self._at(place, env, parts)
        return value, self._network.outputs_with(env, place.var, value)

    def _at(self, place: Place, env: Mapping[Any, Any], parts: Part) -> Any:
        """What a place yields, given what it reads."""
        expression = self._values.get(place.var)
        if expression is None:
            value = env[place.var]
        elif place.layer is None or Part.WEIGHTS not in parts:
            value = self._network.interpreter.evaluate(expression, env)
        else:
            layer = place.layer
            pairs = zip(layer.sources, reads(expression), strict=True)
            own = {**layer.constants, **{ours: env[theirs] for ours, theirs in pairs}}
            value = self._layers[layer.module].evaluate(layer.call, own)
        return value if place.rounding is None else place.rounding(value, parts)
