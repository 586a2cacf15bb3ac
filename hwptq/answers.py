"""A compiled model on data: its outputs, and what they say to people."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .artifact import CompiledModel
from .data.dataset import Dataset, Label, open_dataset
from .data.preprocess import Preprocess, load_preprocess
from .errors import InputError
from .output_folder import PREPROCESS
from .report.examples import top_classes
from .report.golden import joined, write_golden

#: What a line says of an output that is no list of classes.
_MOST_VALUES = 4


@dataclass(frozen=True)
class Answer:
    """The outputs for one sample, by name."""

    outputs: dict[str, np.ndarray]
    label: Label

    def top(self, most: int) -> list[list[float]] | None:
        """The classes of the greatest values of a first output [1, classes], as [class, value]; else None."""
        scores = next(iter(self.outputs.values()))
        fits = scores.ndim == 2 and scores.shape[0] == 1 and scores.shape[1] > 1
        return top_classes(scores[0], most) if fits else None

    def row(self, most: int) -> dict[str, Any]:
        """For JSON: the label, and top classes or the shape and the first values of each output."""
        label = self.label.tolist() if isinstance(self.label, np.ndarray) else self.label
        if (top := self.top(most)) is not None:
            return {"label": label, "top": top}
        held = {name: _shown(array) for name, array in self.outputs.items()}
        return {"label": label, "outputs": held}


def _shown(array: np.ndarray) -> dict[str, Any]:
    first = array.reshape(-1)[:_MOST_VALUES]
    return {"shape": list(array.shape), "first": [round(float(v), 6) for v in first]}


def data_for(model: CompiledModel, data: str, preprocess: Path | None, samples: int | None) -> Dataset:
    """Samples as the model was calibrated with: by the preprocess file in its folder, or another one.

    Raises InputError where data or file aren't what the model takes.
    """
    inputs = {t.name: (t.shape, t.dtype) for t in model.inputs}
    found = open_dataset(data, inputs, _transforms(model, preprocess))
    return found if samples is None else found.take(samples)


def _transforms(model: CompiledModel, preprocess: Path | None) -> Preprocess | None:
    if preprocess is not None:
        return load_preprocess(preprocess)
    stored = model.folder / PREPROCESS
    return load_preprocess(stored) if stored.is_file() else None


def answers(model: CompiledModel, data: Dataset) -> Iterator[Answer]:
    """The outputs of each sample, as soon as they are known."""
    labels: deque[Label] = deque()

    def feed() -> Iterator[dict[str, np.ndarray]]:
        for sample in data:
            labels.append(sample.label)
            yield sample.inputs

    for outputs in model.run_stream(feed()):
        yield Answer(outputs, labels.popleft())


def write_answers(path: Path, found: list[Answer]) -> None:
    """An .npz of the outputs under their names, samples along the first axis. Raises InputError."""
    arrays = {name: joined([answer.outputs[name] for answer in found]) for name in found[0].outputs}
    try:
        write_golden(path, arrays)
    except OSError as error:
        raise InputError(f"{path}: can't be written: {error.strerror or error}") from error
