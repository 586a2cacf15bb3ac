"""Mean average precision of the usual detectors: their outputs become boxes, then `--metric detectors:NAME`.

    nanodet     scores [N, K, C] behind their sigmoid and sides [N, K, 4 * bins], one pair for each stride
    yolox       one output [N, K, 5 + C]: centre and logarithm of the size in strides, objectness, classes
    yolov8      one output [N, 4 + C, K]: centre and size in pixels, classes
    ssd         boxes [N, K, 4] as left, top, right, bottom in parts of the image, and scores [N, K, 1 + C],
                of which the first is the background

Inputs are squares; their size follows from the number of anchors. The file must lie where hwptq is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from hwptq.metrics.map import mean_average_precision, overlaps

STRIDES = (8, 16, 32)
LEAST, OVERLAP, MOST = 0.01, 0.6, 100  # of a score, of boxes of one class, of the boxes of an image
TOGETHER = 256  # candidates that are compared with each other at once

Outputs = Sequence[np.ndarray]
Found = tuple[np.ndarray, np.ndarray, np.ndarray]  # boxes [N, 100, 4], scores [N, 100], classes [N, 100]


def _suppressed(boxes: np.ndarray, scores: np.ndarray) -> Found:
    """The best of boxes [K, 4] and scores [K, C] of one image, without those that lie on better ones.

    Candidates of all classes come in the order of their scores, some at a time, until there are enough.
    """
    kinds, anchors = np.nonzero(scores.T > LEAST)
    values = scores[anchors, kinds]
    kept = np.empty(0, np.int64)
    order = np.argsort(-values, kind="stable")
    for chunk in np.split(order, range(TOGETHER, len(order), TOGETHER)):
        kept = np.concatenate([kept, _free(boxes[anchors], kinds, kept, chunk)])[:MOST]
        if len(kept) == MOST:
            break
    rows = np.column_stack([values[kept], kinds[kept], boxes[anchors[kept]]])
    rows = np.pad(rows, ((0, MOST - len(rows)), (0, 0)))
    return rows[:, 2:], rows[:, 0], rows[:, 1]


def _free(boxes: np.ndarray, kinds: np.ndarray, kept: np.ndarray, chunk: np.ndarray) -> np.ndarray:
    """Those of the candidates `chunk`, best first, that lie on no better one of their class."""
    better = np.concatenate([kept, chunk])
    covers = overlaps(boxes[better], boxes[chunk]) > OVERLAP
    covers &= kinds[better][:, None] == kinds[chunk]
    free = ~covers[: len(kept)].any(axis=0)
    for i, row in enumerate(covers[len(kept) :]):
        if free[i]:
            free[i + 1 :] &= ~row[i + 1 :]
    return chunk[free]


def _each(images: Iterable[tuple[np.ndarray, np.ndarray]]) -> Found:
    boxes, scores, classes = zip(*(_suppressed(*image) for image in images), strict=True)
    return np.stack(boxes), np.stack(scores), np.stack(classes)


def _grid(cells: int) -> np.ndarray:
    """x and y of the cells of a square, row by row: [cells * cells, 2]."""
    y, x = np.meshgrid(np.arange(cells), np.arange(cells), indexing="ij")
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def _corners(centre: np.ndarray, size: np.ndarray) -> np.ndarray:
    return np.concatenate([centre - size / 2, centre + size / 2], axis=-1)


def nanodet_boxes(outputs: Outputs) -> Found:
    """By stride; the sides of a box are the means of their bins (Li et al. 2020, Generalized Focal Loss)."""
    anchors = sorted({a.shape[1] for a in outputs}, reverse=True)
    sides, scores = [], []
    for stride, count in zip(STRIDES, anchors, strict=True):
        score, bins = (a.astype(np.float64) for a in sorted(
            (a for a in outputs if a.shape[1] == count), key=lambda a: a.min() < 0 or a.max() > 1
        ))  # fmt: skip
        cells = round(count**0.5)
        centre = _grid(cells) * stride + (stride - 1) / 2
        bins = bins.reshape(*bins.shape[:2], 4, -1)
        weights = np.exp(bins - bins.max(axis=-1, keepdims=True))
        reach = (weights / weights.sum(axis=-1, keepdims=True)) @ np.arange(bins.shape[-1]) * stride
        box = np.concatenate([centre - reach[..., :2], centre + reach[..., 2:]], axis=-1)
        sides.append(box.clip(0, cells * stride))
        scores.append(score)
    return _each(zip(np.concatenate(sides, axis=1), np.concatenate(scores, axis=1), strict=True))


def yolox_boxes(outputs: Outputs) -> Found:
    """Of raw outputs, as YOLOX exports them without its decoding (Ge et al. 2021)."""
    (raw,) = (a.astype(np.float64) for a in outputs)
    size = round((raw.shape[1] / sum(1 / s**2 for s in STRIDES)) ** 0.5)
    cells = [size // s for s in STRIDES]
    grid = np.concatenate([_grid(n) for n in cells])
    stride = np.concatenate([np.full((n * n, 1), s) for n, s in zip(cells, STRIDES, strict=True)])
    boxes = _corners((raw[..., :2] + grid) * stride, np.exp(raw[..., 2:4]) * stride)
    return _each(zip(boxes, raw[..., 4:5] * raw[..., 5:], strict=True))


def yolov8_boxes(outputs: Outputs) -> Found:
    """Of outputs that are decoded in the graph."""
    (raw,) = (a.astype(np.float64).transpose(0, 2, 1) for a in outputs)
    return _each(zip(_corners(raw[..., :2], raw[..., 2:4]), raw[..., 4:], strict=True))


def ssd_boxes(outputs: Outputs) -> Found:
    """Of boxes that are decoded in the graph; they stay in parts of the image, as the labels must be."""
    boxes, scores = sorted((a.astype(np.float64) for a in outputs), key=lambda a: a.shape[-1] != 4)
    return _each(zip(boxes, scores[..., 1:], strict=True))


def _metric(boxes: Callable[[Outputs], Found]) -> Any:
    """What --metric takes: percent, and by its attribute what the report draws."""

    def score(outputs: list[np.ndarray], labels: np.ndarray) -> float:
        return mean_average_precision(boxes(outputs), labels, outputs)

    score.boxes = boxes  # type: ignore[attr-defined]
    return score


nanodet = _metric(nanodet_boxes)
yolox = _metric(yolox_boxes)
yolov8 = _metric(yolov8_boxes)
ssd = _metric(ssd_boxes)
