"""Remedies put together until the loss is small enough: the cheapest that were measured to do it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import tvm

from hwptq import metrics
from hwptq.data.dataset import Dataset
from hwptq.errors import AccuracyError, InputError
from hwptq.options import Options
from hwptq.pipeline.step import Job

from .change import Change
from .diagnosis import Diagnosis, diagnose
from .treatment import Treated
from .yardstick import Effect

#: Remedies that are put together at most.
_ROUNDS = 3


@dataclass(frozen=True)
class Repair:
    """A change whose measured loss is small enough; diagnoses: one for each remedy, and the last word."""

    change: Change
    drop: float
    diagnoses: tuple[Diagnosis, ...]

    def applied(self, options: Options) -> Options:
        """The options that compile the repaired model."""
        return self.change.applied(options)


def repair(module: tvm.IRModule, job: Job, evaluation: Dataset, most: float) -> Repair:
    """The remedies with which an imported float module loses at most `most` points of its metric.

    Where a single measured remedy suffices, the cheapest one; else the one that restores most, and what helps
    beside it. Raises InputError where there is no metric with points, AccuracyError where nothing suffices.
    """
    change, seen = Change(), list[Diagnosis]()
    for _ in range(_ROUNDS):
        found = diagnose(module, replace(job, options=change.applied(job.options)), evaluation)
        seen.append(found)
        lost = _loss(found)
        if lost(found.found) <= most:
            return Repair(change, lost(found.found), tuple(seen))
        measured = [t for t in found.remedies if t.measured is not None]
        enough = _cheapest([t for t in measured if t.measured and lost(t.measured) <= most])
        if enough is not None and enough.measured is not None:
            return Repair(change | enough.remedy.change, lost(enough.measured), tuple(seen))
        helping = [t for t in measured if (t.restored or 0.0) > 0.0]
        if not helping:
            break
        change = change | max(helping, key=lambda t: t.worth).remedy.change
    least = min(lost(e) for e in [found.found, *(t.measured for t in measured if t.measured)])
    raise AccuracyError(f"no remedy that was tried loses less than {least:.2f} points; {most:g} are allowed")


def _loss(found: Diagnosis) -> Callable[[Effect], float]:
    """What an effect loses of the metric."""
    best = found.best
    if best is None:
        raise InputError("a repair needs points that may be lost: give labels in y or a --metric")

    def lost(effect: Effect) -> float:
        assert effect.metric is not None
        return round(metrics.lost(found.metric, best, effect.metric), 6)

    return lost


def _cheapest(remedies: Sequence[Treated]) -> Treated | None:
    """The least work; of those alike what restores most."""
    return min(remedies, key=lambda t: (t.price, -(t.restored or 0.0)), default=None)
