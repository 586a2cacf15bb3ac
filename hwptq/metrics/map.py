"""map: mean average precision of boxes, as COCO counts it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .metric import NamedMetric, needed

_OVERLAPS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)
_MOST = 100  # detections of an image and a class


def mean_average_precision(
    outputs: Sequence[np.ndarray], labels: np.ndarray | None, exact: Sequence[np.ndarray]
) -> float:
    """Percent: the mean of overlaps 0.5 … 0.95 and of the labels' classes (Lin et al. 2014), without crowds.

    outputs: boxes [N, K, 4] as left, top, right, bottom; scores [N, K], 0 for none; classes [N, K].
    labels: [N, M, 5] as class, left, top, right, bottom; a class below 0 for none.
    """
    truth = needed(labels, "[M, 5] as class, left, top, right, bottom")
    shapes = [list(x.shape) for x in outputs]
    fits = len(outputs) == 3 and outputs[0].ndim == 3 and outputs[0].shape[2] == 4
    if not fits or any(x.shape != outputs[0].shape[:2] for x in outputs[1:]):
        raise ValueError(
            f"outputs are {shapes}, not boxes [N, K, 4], scores [N, K] and classes [N, K]: decode them by a "
            f"module:function that calls hwptq.metrics.map"
        )
    if truth.ndim != 3 or truth.shape[2] != 5 or len(truth) != len(outputs[0]):
        raise ValueError(
            f"the labels are {list(truth.shape)}, not [N, M, 5] as class, left, top, right, bottom"
        )
    boxes, scores, kinds = outputs
    classes = np.unique(truth[..., 0][truth[..., 0] >= 0])
    if not classes.size:
        raise ValueError("the labels hold no box")
    return 100 * float(np.mean([_of_class(c, boxes, scores, kinds, truth) for c in classes]))


def _of_class(
    label: float, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, truth: np.ndarray
) -> float:
    """Average precision of one class, the mean of the overlaps."""
    ranks, hits, wanted = [], [], 0
    for found, score, kind, true in zip(boxes, scores, classes, truth, strict=True):
        chosen = np.flatnonzero((kind == label) & (score > 0))
        chosen = chosen[np.argsort(-score[chosen], kind="stable")][:_MOST]
        real = true[true[:, 0] == label, 1:]
        wanted += len(real)
        ranks.append(score[chosen])
        hits.append(_matches(overlaps(found[chosen], real)))
    order = np.argsort(-np.concatenate(ranks), kind="stable")
    right = np.concatenate(hits, axis=1)[:, order]
    return float(np.mean([_area(row, wanted) for row in right]))


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union, float64 [A, B], of boxes [A, 4] and [B, 4] as left, top, right, bottom."""
    a, b = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = sides.clip(min=0).prod(axis=-1)
    union = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _matches(overlap: np.ndarray) -> np.ndarray:
    """bool [overlaps, detections]: which detections, best first, take a box that is still free."""
    hits = np.zeros((len(_OVERLAPS), len(overlap)), bool)
    for row, least in zip(hits, _OVERLAPS, strict=True):
        free = overlap.copy()
        for i, values in enumerate(free):
            # of equal overlaps COCO takes the last
            best = values.size - 1 - int(values[::-1].argmax()) if values.size else -1
            if best >= 0 and values[best] >= min(least, 1 - 1e-10):
                row[i] = True
                free[:, best] = -1
    return hits


def _area(right: np.ndarray, wanted: int) -> float:
    """Under precision, the best at any higher recall, at 101 recalls. right: bool, best detection first."""
    if not right.size:
        return 0.0
    hits = np.cumsum(right)
    precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    at = np.searchsorted(hits / wanted, _RECALLS, side="left")
    return float(np.append(precision, 0.0)[at].mean())


METRIC = NamedMetric("map", mean_average_precision, boxes=lambda outputs: outputs)
