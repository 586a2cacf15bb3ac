"""A few evaluation samples as people look at them: the image, and what float32 and the code say of it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from hwptq.metrics import Boxes

from .accuracy import Sqnr
from .detections import detection_row

#: How many samples are shown.
EXAMPLES = 6
_TOP = 3
_PIXELS = 160


@dataclass(frozen=True)
class Example:
    """A sample and the outputs for it, by kind: "float32", and "emitted" or "reference"."""

    inputs: Mapping[str, np.ndarray]
    label: Any
    outputs: Mapping[str, Sequence[np.ndarray]]


def example_row(example: Example, names: Sequence[str], boxes: Boxes | None = None) -> dict[str, Any]:
    """A row of `examples` in the report: the label, the SQNR of each output, and the top classes of a first
    output [1, classes] by kind, as [class, value]; else what `boxes` finds. names: of the
    outputs."""
    exact = example.outputs["float32"]
    (kind, found), *_ = ((k, o) for k, o in example.outputs.items() if k != "float32")
    label = example.label if isinstance(example.label, int | float) else None
    row: dict[str, Any] = {"label": label, "kind": kind, "sqnr_db": {}}
    for name, x, y in zip(names, exact, found, strict=False):
        noise = Sqnr()
        noise.add(x, y)
        row["sqnr_db"][name] = noise.db
    if exact[0].ndim == 2 and exact[0].shape[0] == 1 and exact[0].shape[1] > 1:
        row["top"] = {key: top_classes(arrays[0][0]) for key, arrays in example.outputs.items()}
    else:
        row |= detection_row(boxes, [*example.inputs.values()], dict(example.outputs))
    return row


def top_classes(scores: np.ndarray, most: int = _TOP) -> list[list[float]]:
    """The `most` greatest of scores [classes], as [class, score]; of equal ones the first."""
    best = np.argsort(-scores.astype(np.float64), kind="stable")[:most]
    return [[int(i), round(float(scores[i]), 4)] for i in best]


def picture(example: Example) -> str | None:
    """The first input that is an image, as the data URI of a PNG: its values from the least to the greatest,
    as the model sees them. None where there is none."""
    for array in example.inputs.values():
        image = _channels_last(array)
        if image is not None:
            return _png(image)
    return None


def _channels_last(array: np.ndarray) -> np.ndarray | None:
    """[height, width, channel] of an array [1, C, H, W] or [1, H, W, C] with 1 or 3 channels."""
    if array.ndim != 4 or array.shape[0] != 1 or min(array.shape[1:]) < 1:
        return None
    if array.shape[1] in (1, 3) and min(array.shape[2:]) > 3:
        return array[0].transpose(1, 2, 0)
    return array[0] if array.shape[3] in (1, 3) and min(array.shape[1:3]) > 3 else None


def _png(image: np.ndarray) -> str:
    real = image.astype(np.float64)
    low, high = float(real.min()), float(real.max())
    grey = np.round((real - low) / ((high - low) or 1.0) * 255).astype(np.uint8)
    drawn = Image.fromarray(grey[..., 0] if grey.shape[2] == 1 else grey)
    drawn.thumbnail((_PIXELS, _PIXELS))
    stream = io.BytesIO()
    drawn.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
