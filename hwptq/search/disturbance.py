"""What a change of a network does to its outputs, and on how many samples that is known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from hwptq.cache.cache import Cache
from hwptq.cache.content import states
from hwptq.data.dataset import Sample
from hwptq.progress import Ticks, Track
from hwptq.workers.workers import Task, Workers

#: The part of the disturbance that may still be in doubt (standard errors of the probes' shares, summed).
_DOUBT = 0.1


def noise(exact: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    """|x - y|^2 / |x|^2, summed over the outputs."""
    return float(sum(_power(x - y) / max(_power(x), 1e-30) for x, y in zip(exact, found, strict=True)))


def _power(x: np.ndarray) -> float:
    flat = x.astype(np.float64).ravel()
    return float(flat @ flat)


def divergence(exact: np.ndarray, found: np.ndarray) -> float:
    """KL(p || q) in nats of the probabilities along the last axis, the mean over all others."""
    p, q = _log_probabilities(exact), _log_probabilities(found)
    return float((np.exp(p) * (p - q)).sum(axis=-1).mean())


def _log_probabilities(x: np.ndarray) -> np.ndarray:
    """log softmax; the logarithm of what are probabilities already."""
    x = x.astype(np.float64)
    if x.min() >= 0 and np.all(np.abs(x.sum(axis=-1) - 1) < 1e-3):
        x = np.log(np.maximum(x, 1e-12))
    shifted = x - x.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


@dataclass(frozen=True)
class Probing(Task[Sample, np.ndarray], ABC):
    """What each probe does to one sample: [probes, 2]. tick: told of each probe that is done."""

    threads = True
    tick: Ticks | None = field(default=None, kw_only=True)

    @property
    @abstractmethod
    def count(self) -> int:
        """The number of probes."""

    def sent(self) -> Probing:
        return replace(self, tick=None)


def until_settled(
    task: Probing,
    key: str | None,
    workers: Workers,
    samples: Sequence[Sample],
    cache: Cache,
    fewest: int,
    track: Track,
) -> Iterator[np.ndarray]:
    """What each probe does to one sample after another, [probes, 2], in growing batches, until more tell
    little new. key: what the cache knows the probes by, None = not at all; fewest: the first batch; track:
    sees the probes of all samples of a batch.
    """
    kept = cache if key else Cache()
    rows: list[np.ndarray] = []
    while len(rows) < len(samples):
        batch = samples[len(rows) : max(fewest, 2 * len(rows))]
        causes = [(key, sample) for sample in batch]
        tick = Ticks(track, len(batch) * task.count)
        make = partial(_disturbed, replace(task, tick=tick), workers, batch)
        for i, row in enumerate(kept.recall_each("disturbances", causes, states(()), make), 1):
            tick.reach(i * task.count)
            rows.append(row)
            yield row
        if _settled(by_probe(np.array(rows))[0]):
            return


def _disturbed(
    task: Task[Sample, Any], workers: Workers, batch: Sequence[Sample], numbers: Sequence[int]
) -> Iterator[Any]:
    """What each probe does to the samples of these numbers."""
    return workers.map(task, [batch[i] for i in numbers])


def by_probe(rows: np.ndarray) -> tuple[np.ndarray, bool]:
    """[samples, probes] of [samples, probes, 2]: the divergence where each sample has one, or noise; whether
    it is the divergence."""
    kl = not np.isnan(rows[..., 1]).any()
    return rows[..., int(kl)], kl


def _settled(values: np.ndarray) -> bool:
    """Whether the parts that the probes have in the disturbance are known. values: [samples, probes]."""
    if len(values) < 2:
        return False
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1e-30)
    return float((shares.std(axis=0, ddof=1) / len(values) ** 0.5).sum()) <= _DOUBT
