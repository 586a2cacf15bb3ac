"""Compiled code on the samples that were stored with it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .artifact import CompiledModel
from .backends.program import Tensor
from .errors import InputError
from .no_device import check_no_device
from .report.golden import output_keys
from .report.prompt_check import check_prompt

Track = Callable[[Iterable[Any], "int | None"], Iterable[Any]]


@dataclass(frozen=True)
class GoldenCheck:
    """How many output values differ in their bits from those of golden.npz."""

    executor: str
    samples: int
    values: int
    mismatches: int

    def row(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def golden_samples(model: CompiledModel) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Inputs and outputs of each stored sample, by name. Raises InputError where there are none."""
    path = model.folder / "golden.npz"
    keys = output_keys([t.name for t in model.inputs], len(model.outputs))
    try:
        with np.load(check_no_device(path), allow_pickle=False) as stored:
            inputs = {t.name: _samples(stored[t.name], t) for t in model.inputs}
            outputs = {t.name: _samples(stored[k], t) for t, k in zip(model.outputs, keys, strict=True)}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: holds no samples of this model ({error}); compile it again") from error
    counts = {len(array) for array in (*inputs.values(), *outputs.values())}
    if len(counts) != 1 or counts == {0}:
        raise InputError(f"{path}: holds {sorted(counts)} samples; compile the model again")
    for i in range(counts.pop()):
        yield _row(inputs, i), _row(outputs, i)


def check_golden(model: CompiledModel, track: Track = lambda items, total: items) -> GoldenCheck:
    """Run all stored samples, and compare what reads several tokens at once with steps.

    track: passes their outputs on, and so sees how far it has come. Raises InputError where nothing here runs
    the code, or nothing is stored.
    """
    stored = list(golden_samples(model))
    values = mismatches = 0
    outputs = track(model.run_stream(inputs for inputs, _ in stored), len(stored))
    for found, (_, wanted) in zip(outputs, stored, strict=True):
        for name, array in wanted.items():
            values += array.size
            mismatches += int(np.count_nonzero(_bits(array) != _bits(found[name])))
    for _, expected, given in check_prompt(model.running, model.program, [inputs for inputs, _ in stored]):
        values += expected.size
        mismatches += int(np.count_nonzero(_bits(expected) != _bits(given)))
    return GoldenCheck(model.running.description, len(stored), values, mismatches)


def _samples(array: np.ndarray, tensor: Tensor) -> np.ndarray:
    """[samples, *shape] of what is stored along the first axis."""
    if array.dtype != tensor.numpy_dtype:
        raise ValueError(f"{tensor.name} is {array.dtype}, not {tensor.dtype}")
    return array.reshape(-1, *tensor.shape)


def _row(arrays: Mapping[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(array[i]) for name, array in arrays.items()}


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")
