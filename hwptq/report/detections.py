"""Boxes that outputs hold, as the report shows them on the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hwptq.metrics import Boxes

#: How many boxes of an image are drawn, and from which score on.
_MOST = 20
_LEAST_SCORE = 0.3


def detections(boxes: Boxes, outputs: Sequence[np.ndarray]) -> list[list[float]] | None:
    """The best boxes of one sample as [class, score, left, top, right, bottom], the best first, in the pixels
    that `boxes` gives. None where it makes nothing of the outputs."""
    try:
        places, scores, classes = (np.asarray(part, np.float64)[0] for part in boxes(outputs))
        table = np.column_stack([classes, scores, places])
    except (TypeError, ValueError, IndexError):
        return None
    if table.shape[1] != 6:
        return None
    best = table[np.argsort(-table[:, 1], kind="stable")][:_MOST]
    kept = best[(best[:, 1] >= _LEAST_SCORE) & np.isfinite(best).all(axis=1)]
    return [[int(row[0]), *(round(float(v), 3) for v in row[1:])] for row in kept]


def size_of(inputs: Sequence[np.ndarray]) -> list[int] | None:
    """[height, width] of the first input [1, C, H, W] or [1, H, W, C] that is an image of 1 or 3 channels."""
    for array in inputs:
        if array.ndim == 4 and array.shape[1] in (1, 3):
            return [int(n) for n in array.shape[2:]]
        if array.ndim == 4 and array.shape[3] in (1, 3):
            return [int(n) for n in array.shape[1:3]]
    return None


def detection_row(
    boxes: Boxes | None, inputs: Sequence[np.ndarray], outputs: dict[str, Sequence[np.ndarray]]
) -> dict[str, Any]:
    """For a row of `examples`: `boxes` by kind, and `size` of the image that they lie on; else nothing."""
    size = size_of(inputs)
    found = {kind: detections(boxes, arrays) for kind, arrays in outputs.items()} if boxes else {}
    if size is None or not found or None in found.values():
        return {}
    return {"boxes": found, "size": size}
