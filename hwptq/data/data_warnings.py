"""What is suspicious about the samples themselves."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from hwptq.notices import Warning

from .dataset import Dataset

#: Fewer samples than this rarely show the ranges of a network's tensors, or its accuracy.
FEW = 16
_LOOKED_AT = 64
_MOST_CHANNELS = 64


def data_warnings(calibration: Dataset | None, evaluation: Dataset) -> list[Warning]:
    """Few samples, and calibration data or parts of it that never change."""
    used = {"calibration": calibration, "evaluation": None if evaluation is calibration else evaluation}
    found = []
    for use, data in used.items():
        if data is not None and data.count is not None and data.count < FEW:
            are = "sample is" if data.count == 1 else "samples are"
            text = f"{data.count} {use} {are} few: give {FEW} or more, some hundreds if you have them"
            found.append(Warning("few-samples", "", text))
    if calibration is not None and not calibration.once:
        found += _constant(calibration)
    return found


def _constant(data: Dataset) -> Iterator[Warning]:
    """A warning for each float input that has one value, or channels that have."""
    low: dict[str, np.ndarray] = {}
    high: dict[str, np.ndarray] = {}
    for sample in itertools.islice(data, _LOOKED_AT):
        for name, array in sample.inputs.items():
            if array.dtype.kind == "f" and array.size:
                values = _by_channel(array)
                low[name] = np.minimum(low.get(name, np.inf), values.min(axis=1))
                high[name] = np.maximum(high.get(name, -np.inf), values.max(axis=1))
    for name in low:
        least, most = low[name].min(), high[name].max()
        constant = np.flatnonzero(low[name] == high[name])
        if least == most:
            text = (
                f"all of the calibration data is {least:g}: nothing can be learned from it, give real samples"
            )
            yield Warning("constant-data", name, text, serious=True)
        elif len(constant):
            channels = ", ".join(map(str, constant[:8]))
            text = (
                f"channel {channels} never changes in the calibration data: check it and the preprocess file"
            )
            yield Warning("constant-data", name, text)


def _by_channel(array: np.ndarray) -> np.ndarray:
    """[channels, values]: of an image NCHW or NHWC, whichever has few; of all else one row."""
    if array.ndim == 4:
        axis = min((1, 3), key=lambda a: array.shape[a])
        if array.shape[axis] <= _MOST_CHANNELS:
            return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
    return array.reshape(1, -1)
