"""How good outputs are against those of float32: what every figure of a diagnosis is measured with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm

from hwptq import metrics
from hwptq.data.dataset import Sample
from hwptq.evaluate.downstream import on_threads
from hwptq.evaluate.interpret import Interpreter
from hwptq.options import Metric
from hwptq.report.accuracy import Sqnr, load_metric

Outputs = list[np.ndarray]
_NO_LESS = 1e-12  # noise below is none: 120 dB


@dataclass(frozen=True)
class Effect:
    """What some loss does to the outputs.

    noise: its power relative to the signal's, the mean of the outputs; metric: None where only SQNR can be
    measured; outputs_db: SQNR of each output.
    """

    noise: float
    metric: float | None
    outputs_db: tuple[float | None, ...] = ()

    @property
    def sqnr_db(self) -> float | None:
        """Of the mean noise, in dB; None where there is none."""
        return decibel(self.noise)

    def row(self) -> dict[str, Any]:
        """For JSON."""
        return {"sqnr_db": self.sqnr_db, "metric": self.metric}


def decibel(noise: float) -> float | None:
    """The SQNR of a relative noise power, in dB; None for none."""
    return None if noise < _NO_LESS else round(-10 * math.log10(noise), 2)


def mean_noise(sqnr: Sequence[Sqnr]) -> float:
    """Noise relative to the signal, the mean of several outputs."""
    return sum(s.noise / max(s.signal, 1e-30) for s in sqnr) / max(len(sqnr), 1)


class Yardstick:
    """Samples, what float32 makes of them, and the user's metric."""

    def __init__(self, samples: Sequence[Sample], exact: Sequence[Outputs], metric: str | Metric | None):
        self.samples, self.exact, self._metric = samples, exact, metric
        score = load_metric(metric)
        for sample, outputs in zip(samples, exact, strict=True):
            score.add(sample.label, {"float32": outputs})
        report = score.report()
        self.name = str(report["metric"])
        #: What float32 scores; None where only SQNR can be measured.
        self.best = None if self.name == "sqnr_db" else float(report["float32"])

    @classmethod
    def of(cls, float32: tvm.IRModule, samples: Sequence[Sample], metric: str | Metric | None) -> Yardstick:
        """That of a float module."""
        return cls(samples, list(on_threads(lambda: Interpreter(float32), _run, samples)), metric)

    def first(self, count: int) -> Yardstick:
        """That of the first `count` samples."""
        return Yardstick(self.samples[:count], self.exact[:count], self._metric)

    def effects(self, runs: Iterable[dict[str, Outputs]]) -> dict[str, Effect]:
        """The effect of each kind of outputs; `runs`: by kind, one dict for each of the first samples."""
        score = load_metric(self._metric)
        for sample, exact, found in zip(self.samples, self.exact, runs, strict=False):
            score.add(sample.label, {"float32": exact, **found})
        report = score.report()
        return {
            kind: Effect(
                mean_noise(sqnr),
                None if self.best is None else float(report[kind]),
                tuple(s.db for s in sqnr),
            )
            for kind, sqnr in score.sqnr.items()
            if kind != "float32"
        }

    def module(self, mod: tvm.IRModule) -> Effect:
        """The effect of a module whose outputs stand for those of float32, such as one in integers."""
        found = on_threads(lambda: Interpreter(mod), _run, self.samples)
        return self.effects({"found": outputs} for outputs in found)["found"]

    def restored(self, before: Effect, after: Effect) -> float:
        """The part of what was lost that is back, 1 = all: of the metric where that had fallen, else of the
        noise, where there was one."""
        if self.best is not None and before.metric is not None and after.metric is not None:
            lost = metrics.lost(self.name, self.best, before.metric)
            if lost > self._step:
                return 1 - metrics.lost(self.name, self.best, after.metric) / lost
        return 1 - after.noise / before.noise if before.noise > _NO_LESS else 0.0

    @property
    def _step(self) -> float:
        """A loss of the metric that one or two samples may make by chance."""
        return 200 / len(self.samples) if self.name == "top1" else 0.01 * abs(self.best or 0.0)


def _run(interpreter: Interpreter, sample: Sample) -> Outputs:
    return interpreter.run(sample.inputs)
