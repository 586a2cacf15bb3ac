"""Trials of --max-drop that were run before, for the same model, data, metric and options."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm

from hwptq.cache.cache import Cache
from hwptq.cache.content import states
from hwptq.cache.digest import NoDigest, file_digest
from hwptq.data.dataset import Dataset
from hwptq.options import Metric
from hwptq.pipeline.stages import Prepared
from hwptq.pipeline.step import Batches, Job
from hwptq.progress import Progress


@dataclass(frozen=True)
class Lost:
    """Points that a choice loses: as measured, and as float32 believes where top-1 is measured."""

    measured: float
    believed: float | None = None


@dataclass(frozen=True)
class Found:
    """What a trial showed: the `accuracy` of its code, and bytes of its weights."""

    accuracy: dict[str, Any]
    weight_bytes: int
    lost: Lost


#: How the cache keeps one.
KEPT = states((Found, Lost))


class TrialCauses:
    """What determines a trial beside the dtypes of its layers."""

    def __init__(self, prepared: Prepared, job: Job, data: Dataset):
        options, silent = job.options, Progress()
        self._causes = (
            prepared.stats,
            Batches(job.samples, silent),
            Batches(data, silent),
            job.target,
            options.recipe,
            options.weight_granularity,
            options.keep_float,
            options.threads,
            options.executor,
            options.kv_cache,
            job.partner,
        )
        self._metric = options.metric

    def of(self, recorded: tvm.IRModule) -> tuple[Any, ...]:
        """Those of a trial. recorded: the float module that says which dtypes were chosen."""
        return (recorded, *self._causes, MetricSource(self._metric))


class MetricSource:
    """What a metric is known by: its name, and for one of the user's the file that it is written in. What
    that file imports may change unseen; the code that is delivered is scored anew in any case."""

    def __init__(self, metric: str | Metric | None):
        self._metric = metric

    @property
    def identity(self) -> str | None:
        """None where there is no file."""
        metric = self._metric
        if metric is None or (isinstance(metric, str) and ":" not in metric):
            return str(metric)
        try:
            if isinstance(metric, str):
                file = getattr(sys.modules.get(metric.partition(":")[0]), "__file__", None)
                return f"{metric} {file_digest(Path(file))}" if file else None
            if not inspect.isfunction(metric) or metric.__closure__:
                return None  # what an object holds, no file says
            return f"{metric.__qualname__} {file_digest(Path(inspect.getfile(metric)))}"
        except (NoDigest, OSError, TypeError):
            return None


def recalled(cache: Cache, causes: tuple[Any, ...], make: Any) -> Found:
    """A trial from the cache, if it has it, else what `make` finds."""
    found: Found = cache.recall("trial", causes, KEPT, make)
    return found
