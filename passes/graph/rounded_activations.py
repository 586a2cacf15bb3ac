"""What is lost where a plan rounds all activations of a float function, and its weights stay as they are."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tvm

from hwptq.evaluate.downstream import Network
from hwptq.evaluate.partner import Partner
from hwptq.ir.dataflow import reads

from .output_parts import output_parts
from .quantization_plan import QuantizationPlan

#: Noise power relative to the signal's that is told apart from none.
_LEAST = 1e-12


class RoundedActivations:
    """A function of a float module, on samples that hold its inputs."""

    def __init__(self, mod: tvm.IRModule, function: str, samples: Sequence[Mapping[str, np.ndarray]]):
        self._network = Network(mod, function)
        self._ends = output_parts(mod[function])
        self._samples = samples
        self._exact = [self._at_ends(self._network.values(s)) for s in samples]

    def lost(self, plan: QuantizationPlan) -> np.ndarray:
        """SQNR in dB, [parts of the outputs]; the noise of all samples together."""
        noise, signal = np.zeros(len(self._ends)), np.zeros(len(self._ends))
        for sample, exact in zip(self._samples, self._exact, strict=True):
            found = self._at_ends(self._rounded(sample, plan))
            noise += [np.square(a - b).sum() for a, b in zip(exact, found, strict=True)]
            signal += [np.square(a).sum() for a in exact]
        return np.asarray(-10 * np.log10(np.maximum(noise / np.maximum(signal, 1e-30), _LEAST)))

    def lost_by_pairs(self, plan: QuantizationPlan, partner: Partner) -> float:
        """What the partner of the first output, an embedding, loses: the mean of the samples, in nats."""
        losses = []
        for sample in self._samples:
            exact = self._network.outputs(self._network.values(sample))[0]
            losses.append(partner.loss(exact, self._network.outputs(self._rounded(sample, plan))[0]))
        return float(np.mean(losses))

    def _rounded(self, sample: Mapping[str, np.ndarray], plan: QuantizationPlan) -> dict[Any, Any]:
        """The values of all vars, as operators in integers read them; the ends as they leave."""
        unrounded: dict[Any, Any] = {}  # what operators in float read of one another
        narrowed: dict[Any, Any] = {}  # wide tensors as products read them

        def change(var: Any, value: Any, env: Mapping[Any, Any]) -> Any:
            in_float = plan.kinds.get(var) is None
            x = env[var] if value is None else self._network.interpreter.evaluate(value, seen(var, env))
            if var not in plan.qparams:
                return x
            if in_float:
                unrounded[var] = x
            real = plan.qparams[var].rounded(x)
            if var in plan.narrow:
                narrowed[var] = plan.narrow[var].rounded(real)
            return real

        def seen(var: Any, env: Mapping[Any, Any]) -> Mapping[Any, Any]:
            instead = unrounded if plan.kinds[var] is None else narrowed if plan.reads_bytes(var) else {}
            own = {a: instead[a] for a in reads(plan.values[var]) if a in instead}
            return ChainMap(own, env) if own else env  # type: ignore[arg-type]

        return {**self._network.values(sample, change), **unrounded}

    def _at_ends(self, env: Mapping[Any, Any]) -> list[np.ndarray]:
        return [np.asarray(env[end], np.float64) for end in self._ends]
