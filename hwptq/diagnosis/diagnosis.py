"""diagnose: the losses of a quantization, and the remedies that were tried on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tvm

from hwptq import passes
from hwptq.backends.backend import backend_of
from hwptq.data.dataset import Dataset, Sample
from hwptq.errors import InputError, UnsupportedError
from hwptq.ir.macs import float_macs
from hwptq.pipeline.stages import Quantized, lower
from hwptq.pipeline.step import Job
from hwptq.progress import Progress
from hwptq.report.accuracy import load_metric
from hwptq.report.verify import verify

from .isolated import samples_alone, within
from .losses import CLOSELY, PartLoss, PlaceLoss, by_place, closely, split
from .places import places
from .remedies import Case, Remedy, proposals
from .treatment import Treated, Treatment
from .trials import Trials
from .yardstick import Effect, Yardstick

#: Multiply-accumulates that the network may be evaluated with as a whole, and bounds of the samples.
_MEASURED_MACS, _MEASURED_SAMPLES = 1e10, (8, 256)
_MEASURED_REMEDIES = 4
_COMPARED_SAMPLES = 2
_CLOSELY_SAMPLES = 4


@dataclass(frozen=True)
class Lowering:
    """What emitted code loses beside the integers that it was made of: nothing, as `values` outputs show.

    executor: what ran the code, or why nothing did.
    """

    executor: str
    values: int
    mismatches: int


@dataclass(frozen=True)
class Diagnosis:
    """What a quantization loses at its outputs, where, by what, and what mends it.

    metric: its name; best: what float32 scores; simulated: the effect of quantization in float, found: that
    of the integers, which emitted code equals to the bit; losses and remedies: the most and the best first.
    """

    metric: str
    best: float | None
    samples: int
    simulated: Effect
    found: Effect
    parts: tuple[PartLoss, ...]
    losses: tuple[PlaceLoss, ...]
    remedies: tuple[Treated, ...]
    lowering: Lowering | None = None

    def row(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "metric": self.metric,
            "float32": self.best,
            "samples": self.samples,
            "quantized": self.found.row(),
            "parts": {p.part.word: {"alone": p.alone.row(), "all_but": p.all_but.row()} for p in self.parts},
            "simulated": self.simulated.row(),
            "lowering": asdict(self.lowering) if self.lowering else None,
            "layers": [loss.row() for loss in self.losses],
            "remedies": [treated.row() for treated in self.remedies],
        }


def diagnose(
    module: tvm.IRModule, job: Job, evaluation: Dataset, outputs: tuple[str, ...] | None = None
) -> Diagnosis:
    """Of an imported float module, quantized as the job says, on the first samples of `evaluation`.

    outputs: their names; with them the code is emitted, and compared with its integers. Raises InputError.
    """
    if passes.is_quantized(module):
        raise InputError(
            "the model is quantized already: diagnose needs the one in float that it was made of"
        )
    progress, options = job.progress, job.options
    trials = Trials(module, job)
    quantized = trials.quantized(options)
    found = places(quantized.float32, quantized.qdq)
    if not found:
        raise UnsupportedError(f"nothing of the model can be quantized for {job.target.name}")
    macs = max(1, float_macs(quantized.float32))
    samples = _first(evaluation, options.samples or within(_MEASURED_MACS / macs, _MEASURED_SAMPLES))
    few = samples_alone(quantized.float32, found)
    with progress.stage("measure"):
        yardstick = Yardstick.of(quantized.float32, samples, options.metric)
        before = yardstick.module(trials.integers(quantized))
    with progress.stage("parts"):
        simulated, parts = split(quantized.float32, found, yardstick, progress.track)
    with progress.stage("layers"):
        losses = by_place(quantized.float32, found, samples[:few], progress.track)
    with progress.stage("look closely"):
        fewer = min(few, _CLOSELY_SAMPLES)
        worst = closely(quantized.float32, found, losses[:CLOSELY], yardstick, fewer, progress.track)
        losses = [*worst, *losses[CLOSELY:]]
    lowering = _lowering(quantized, job, evaluation, outputs) if outputs else None
    remedies = proposals(Case(quantized.float32, options, job.target, parts, losses))
    treatment = Treatment(trials, options, found, yardstick, before, few)
    return Diagnosis(
        yardstick.name, yardstick.best, len(samples), simulated, before, tuple(parts), tuple(losses),
        _treated(treatment, remedies, progress), lowering,
    )  # fmt: skip


def _treated(treatment: Treatment, remedies: Sequence[Remedy], progress: Progress) -> tuple[Treated, ...]:
    """All remedies that help as predicted, those that promise most as measured; the best first."""
    with progress.stage("remedies"):
        tracked = progress.track(remedies, len(remedies))
        predicted = list(filter(None, map(treatment.predicted, tracked)))
    with progress.stage("best remedies"):
        chosen = progress.track(_most_promising(predicted), _MEASURED_REMEDIES)
        measured = list(map(treatment.measured, chosen))
    tried = {t.remedy for t in measured}
    found = [*measured, *(t for t in predicted if t.remedy not in tried)]
    return tuple(sorted(found, key=lambda t: -t.worth))


def _most_promising(predicted: Sequence[Treated]) -> list[Treated]:
    """Those worth a measurement: of a kind the two best, and all that nothing but a measurement shows."""
    unknown = [t for t in predicted if t.predicted is None]
    found: list[Treated] = []
    for treated in sorted(predicted, key=lambda t: -t.worth):
        alike = [t for t in found if t.remedy.change.kind == treated.remedy.change.kind]
        if treated.arguments and treated.predicted and len(alike) < 2:
            found.append(treated)
    return found[: _MEASURED_REMEDIES - len(unknown)] + unknown


def _lowering(quantized: Quantized, job: Job, evaluation: Dataset, outputs: tuple[str, ...]) -> Lowering:
    """Emits the code, and runs it where it can be run here."""
    with job.progress.stage("emit and compare"), TemporaryDirectory(prefix="hwptq-") as folder:
        graphs = lower(quantized, job)
        program = backend_of(job.target).build_program(graphs.kernels, outputs, "diagnosed", Path(folder))
        data, score = evaluation.take(_COMPARED_SAMPLES), load_metric(None)
        found = verify(graphs, program, job.target, data, score, job.progress, job.options.executor)
        return Lowering(found.executor, found.values, found.mismatches)


def _first(data: Dataset, count: int) -> list[Sample]:
    return list(islice(data, count))
