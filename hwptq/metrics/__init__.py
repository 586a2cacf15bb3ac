"""Metrics by name, one file each; what float32, reference and emitted outputs are scored with."""

from __future__ import annotations

from . import cosine, map, miou, perplexity, retrieval, spearman, top5
from .metric import Boxes, NamedMetric

_ALL = {m.METRIC.name: m.METRIC for m in (top5, map, miou, cosine, perplexity, spearman, retrieval)}
#: What --metric takes; top1 and sqnr are what a score measures anyway.
NAMES = ("top1", "sqnr", *_ALL)


def find(name: str) -> NamedMetric | None:
    """The metric of that name; None where it is not one of these."""
    return _ALL.get(name)


def lost(name: str, best: float, score: float) -> float:
    """What `score` lacks of `best` by the metric of that name; more is better by those of users."""
    metric = find(name)
    return best - score if metric is None or metric.higher_is_better else score - best


__all__ = ["NAMES", "Boxes", "NamedMetric", "find", "lost"]
