"""Sensitivity: what quantizing one layer alone does to the outputs of the network, measured on data.

The rest of the network stays float32 and is evaluated from that layer on only. Small disturbances from
different layers are almost independent, so their powers at the output add up: that is what the choice of bit
widths minimises the sum of.

The layer has the weights that the variants hold; `choose.py` rounds them as the recipe does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import tvm

from hwptq.cache.cache import Cache
from hwptq.data.dataset import Sample
from hwptq.evaluate.downstream import Network
from hwptq.evaluate.interpret import Interpreter
from hwptq.evaluate.partner import Partner
from hwptq.formats import Pair
from hwptq.ir.dataflow import bindings, reads
from hwptq.ir.provenance import Part, origins
from hwptq.passes.variants import Variants
from hwptq.progress import Track
from hwptq.report.accuracy import names_a_class
from hwptq.workers.workers import Here, Workers

from .disturbance import Probing, by_probe, divergence, noise, until_settled

#: The most samples and the fewest: the disturbance is averaged over them and over all values of the outputs.
SAMPLES, _FEWEST = 64, 8


@dataclass(frozen=True)
class Sensitivity:
    """By layer and pair: `measure` is "noise" (power at the outputs, relative to the signal's), "kl" (mean
    divergence of the class probabilities from those of float32, in nats) or "pairs" (evaluate/partner.py)."""

    measure: str
    values: Mapping[str, Mapping[Pair, float]]


def measure_sensitivity(
    float32: tvm.IRModule,
    variants: Variants,
    samples: Iterable[Sample],
    track: Track = lambda items, total: items,
    workers: Workers | None = None,
    partner: Partner | None = None,
    cache: Cache | None = None,
) -> Sensitivity:
    """The sensitivity of every layer of `variants` that has a choice, to each of its pairs.

    On the first samples: as many as settle which part of the disturbance each layer has, at most SAMPLES. One
    image of a detector has thousands of boxes, and tells more than many of a classifier.
    float32: the fused module that the variants were made of. "kl" is measured where labels are class numbers
    and the first output is [1, classes]; "pairs" where there is a partner. track: sees the probes that are
    done; workers: who looks at samples, this process if none are given; cache: keeps
    what each sample shows.
    """
    chosen = list(islice(samples, SAMPLES))
    probes = variants.probes
    if not probes:
        return Sensitivity("noise", {})
    task = _Disturbances(float32, variants, probes, partner)
    cache = cache or Cache()
    key = cache.key("disturbances", (float32, variants, partner and partner.rows))
    runs = until_settled(task, key, workers or Here(), chosen, cache, _FEWEST, track)
    values, kl = by_probe(np.array(list(runs)))
    found: dict[str, dict[Pair, float]] = {}
    for (name, pair), value in zip(probes, values.mean(axis=0), strict=True):
        found.setdefault(name, {})[pair] = float(value)
    return Sensitivity("pairs" if partner else "kl" if kl else "noise", found)


@dataclass(frozen=True)
class _Disturbances(Probing):
    """What quantizing each layer alone does to one sample."""

    float32: tvm.IRModule
    variants: Variants
    probes: tuple[tuple[str, Pair], ...]
    partner: Partner | None = None

    def bench(self) -> _Bench:
        return _Bench(self.float32, self.variants, self.probes, self.partner)

    def work(self, bench: _Bench, item: Sample) -> np.ndarray:
        return bench.disturbances(item, self.tick or (lambda: None))

    @property
    def count(self) -> int:
        return len(self.probes)


class _Bench:
    """One network to disturb; for one thread."""

    def __init__(
        self,
        float32: tvm.IRModule,
        variants: Variants,
        probes: Sequence[tuple[str, Pair]],
        partner: Partner | None = None,
    ):
        self.network, self.partner = Network(float32), partner
        known = {origin.label: var for var, origin in origins(self.network.interpreter.func).items()}
        layers = {pair: Interpreter(qdq) for pair, qdq in variants.qdq.items()}
        self.probes = [(known[name], _Probe(layers[pair], name, known)) for name, pair in probes]

    def disturbances(self, sample: Sample, tick: Callable[[], None]) -> np.ndarray:
        """[probes, 2]: noise power relative to the signal, and the divergence, or NaN."""
        clean = self.network.values(sample.inputs)
        exact = self.network.outputs(clean)
        ranked = names_a_class(sample.label, exact[0].shape)
        rows = []
        for var, probe in self.probes:
            outputs = self.network.outputs_with(clean, var, probe.output(clean))
            rows.append((noise(exact, outputs), self._divergence(exact[0], outputs[0], ranked)))
            tick()
        return np.array(rows)

    def _divergence(self, exact: np.ndarray, found: np.ndarray, ranked: bool) -> float:
        if self.partner is not None:
            return self.partner.loss(exact, found)
        return divergence(exact, found) if ranked else float("nan")


class _Probe:
    """A layer as a QDQ module computes it, on the float tensors of its network."""

    def __init__(self, interpreter: Interpreter, label: str, known: Mapping[str, Any]):
        values, named = dict(bindings(interpreter.func)), origins(interpreter.func)
        results = {origin.label: v for v, origin in named.items() if origin.part is Part.RESULT}
        var = results[label]
        self.interpreter, self.call = interpreter, values[var]
        self.sources: dict[Any, Any] = {}  # var of the QDQ module -> var of the float module
        self.constants: dict[Any, Any] = {}
        self.steps: list[tuple[Any, Any]] = []  # from the sources to the layer

        def visit(other: Any) -> None:
            if named[other].part is Part.RESULT and named[other].label in known:
                self.sources[other] = known[named[other].label]
                return
            for source in reads(values[other]):
                visit(source)
            if reads(values[other]):
                self.steps.append((other, values[other]))
            else:
                self.constants[other] = interpreter.evaluate(values[other], {})

        for source in reads(self.call):
            visit(source)

    def output(self, clean: Mapping[Any, Any]) -> Any:
        """What the layer makes of the tensors of the float network."""
        env = {**self.constants, **{ours: clean[theirs] for ours, theirs in self.sources.items()}}
        for var, value in self.steps:
            env[var] = self.interpreter.evaluate(value, env)
        return self.interpreter.evaluate(self.call, env)
