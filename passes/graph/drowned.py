"""What is lost where a tensor that layers read is rounded: in what these layers give, and at the outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import tvm

from hwptq.evaluate.downstream import Network
from hwptq.ir.macs import node_macs

from .output_parts import output_parts

#: Samples that are looked at.
SAMPLES = 3
#: Tensors whose noise is followed to the outputs, those that drown the most of what reads them: as many as
#: these multiply-accumulates allow, within bounds.
_FOLLOWED_MACS, _FOLLOWED = 1e11, (4, 64)
_DROWNED = 0.001


@dataclass(frozen=True)
class Rounded:
    """A tensor, what rounds it on its own, and the layers that read it."""

    var: Any
    rounding: Callable[[np.ndarray], np.ndarray]
    layers: tuple[Any, ...]


class Losses:
    """Noise that the rounding of single tensors makes in a function of a float module.

    samples: dicts of its inputs, of which the first SAMPLES that have all of them are read.
    """

    def __init__(self, mod: tvm.IRModule, function: str, samples: Iterable[Mapping[str, np.ndarray]]):
        self._network = Network(mod, function)
        self._ends = output_parts(mod[function])
        self._macs = sum(node_macs(mod, value) for _, value in self._network.order)
        names = {str(p.name) for p in self._network.params}
        self._samples = [s for s in islice(samples, SAMPLES) if names <= s.keys()]

    def worth_following(self, tensors: Sequence[Rounded]) -> list[Rounded]:
        """Those that drown the most channels of what a layer gives, the worst first."""
        drowned = self._drowned(tensors)
        few, many = _FOLLOWED
        count = int(_FOLLOWED_MACS / max(self._macs * len(self._samples), 1))
        worst = sorted(tensors, key=lambda t: -drowned[t.var])[: min(max(count, few), many)]
        return [t for t in worst if drowned[t.var] > _DROWNED]

    def at_outputs(self, tensors: Sequence[Rounded]) -> dict[Any, float]:
        """By var, the power of the noise relative to the signal's, the mean of the parts of the outputs; one
        that drowns counts as 1."""
        noise = dict.fromkeys((t.var for t in tensors), 0.0)
        for sample in self._samples if tensors else ():
            env = self._network.values(sample)
            for tensor in tensors:
                changed = self._network.values_with(env, tensor.var, tensor.rounding(env[tensor.var]))
                found = [_relative(env[end], changed[end]) for end in self._ends]
                noise[tensor.var] += float(np.mean(found)) / len(self._samples)
        return noise

    def _drowned(self, tensors: Sequence[Rounded]) -> dict[Any, float]:
        """By var, the mean over the channels of noise relative to the variance, of the layer that loses
        most; 1 where no layer reads the var itself."""
        network = self._network
        sums = {t.var: [_Channels() for _ in t.layers] for t in tensors}
        for sample in self._samples if tensors else ():
            env = network.values(sample)
            for tensor in tensors:
                changed = {**env, tensor.var: tensor.rounding(env[tensor.var])}
                for var, channels in zip(tensor.layers, sums[tensor.var], strict=True):
                    channels.add(env[var], network.interpreter.evaluate(network.expressions[var], changed))
        return {t.var: max((c.drowned for c in sums[t.var]), default=1.0) for t in tensors}


class _Channels:
    """The power of what a layer gives, its means aside, and of the noise in it, by channel."""

    def __init__(self) -> None:
        self.count, self.total, self.power, self.noise = 0.0, 0.0, 0.0, 0.0

    def add(self, exact: np.ndarray, found: np.ndarray) -> None:
        """One sample."""
        rows = _rows(exact)
        self.count += rows.shape[1]
        self.total = self.total + rows.sum(axis=1)
        self.power = self.power + (rows**2).sum(axis=1)
        self.noise = self.noise + ((_rows(found) - rows) ** 2).sum(axis=1)

    @property
    def drowned(self) -> float:
        """The mean over the channels of noise relative to the variance, 1 at most."""
        variance = np.maximum(self.power - np.square(self.total) / max(self.count, 1.0), 1e-30)
        return float(np.minimum(self.noise / variance, 1.0).mean())


def _rows(x: np.ndarray) -> np.ndarray:
    """float64 [channels, all else]: of images NCHW, else of the last axis."""
    axis = 1 if x.ndim == 4 else x.ndim - 1
    return np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1).astype(np.float64)


def _relative(exact: np.ndarray, found: np.ndarray) -> float:
    x, y = exact.astype(np.float64).ravel(), found.astype(np.float64).ravel()
    return min(float((x - y) @ (x - y)) / max(float(x @ x), 1e-30), 1.0)
