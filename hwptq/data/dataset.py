"""Calibration and evaluation data, as a stream of samples that fit the inputs of a graph.

    dataset = open_dataset("images.npz", {"input": ((1, 3, 32, 32), "float32")}, load_preprocess("p.toml"))
    for sample in dataset:  # as often as wanted; one sample in memory at a time
        run(sample.inputs)

A source yields raw samples; Dataset preprocesses and checks each. Whatever is wrong is an InputError.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hwptq.cache.digest import digest
from hwptq.errors import InputError

from .images import ImageFolder
from .preprocess import InputTransform, Preprocess, fit
from .sources import ArrayFile, Batches, Inputs, RawSample, Source, is_function, user_function

Label = int | float | np.ndarray | None


@dataclass(frozen=True)
class Sample:
    """One sample: each array has the graph input's shape (batch 1) and dtype."""

    inputs: dict[str, np.ndarray]
    label: Label = None


class Dataset:
    """Samples for a graph, read anew from the source on every iteration."""

    def __init__(self, source: Source, inputs: Inputs, transforms: Mapping[str, InputTransform]) -> None:
        self.name = source.name
        self.count = source.count
        self._source, self._inputs, self._transforms = source, inputs, transforms
        self._first = 0
        self._limit: int | None = None

    def __iter__(self) -> Iterator[Sample]:
        empty = True
        end = None if self._limit is None else self._first + self._limit
        for raw in self._source.part(self._first, end):
            empty = False
            yield Sample({name: self._fit(raw, name) for name in self._inputs}, _label(raw))
        if empty:
            raise InputError(f"{self.name}: holds no samples: give at least one")

    def __len__(self) -> int:
        if self.count is None:
            raise TypeError(f"{self.name}: the number of samples isn't known before they are read")
        return self.count

    def __bool__(self) -> bool:
        return True

    @property
    def once(self) -> bool:
        """Whether it can be read only once."""
        return self._source.once

    @cached_property
    def identity(self) -> str | None:
        """A hash of all samples, None where they may be others the next time that they are read."""
        held = self._source.identity
        return (
            None if held is None else digest(held, self._inputs, self._transforms, self._first, self._limit)
        )

    @property
    def divisible(self) -> bool:
        """Whether parts of it can be read by themselves."""
        return self.count is not None and not self.once

    def peek(self) -> Sample | None:
        """The first sample; None where the data can be read only once."""
        return None if self.once else next(iter(self))

    def take(self, limit: int) -> Dataset:
        """The first `limit` samples (all, if there are fewer)."""
        if limit < 1:
            raise InputError(f"{self.name}: at least 1 sample is needed, not {limit}")
        return self.part(0, limit)

    def part(self, first: int, end: int | None) -> Dataset:
        """The samples from `first` up to `end` or the last."""
        part = Dataset(self._source, self._inputs, self._transforms)
        ends = [e for e in (end, self._limit) if e is not None]
        part._first, part._limit = self._first + first, min(ends) - first if ends else None
        part.count = None if self.count is None else min([*ends, self.count]) - first
        return part

    def _fit(self, raw: RawSample, name: str) -> np.ndarray:
        shape, dtype = self._inputs[name]
        where = raw.where if len(self._inputs) == 1 else f"{raw.where}, input '{name}'"
        return fit(raw.arrays[name], self._transforms[name], shape, dtype, where)


def open_dataset(spec: str | Path, inputs: Inputs, preprocess: Preprocess | None = None) -> Dataset:
    """Open an .npz, an .npy, a folder of images or `package.module:function`.

    The first sample of a file or folder is checked at once, the others as they are read.
    """
    path, transforms = Path(spec), _transforms(inputs, preprocess)
    if os.path.isdir(path):  # unlike path.is_dir() never an error
        return _open_images(path, inputs, transforms)
    if path.suffix in (".npz", ".npy"):
        return _first_checked(Dataset(ArrayFile(path, list(inputs)), inputs, transforms))
    if is_function(str(spec)):
        return Dataset(Batches(str(spec), user_function(str(spec)), inputs), inputs, transforms)
    problem = "is no known kind of data" if os.path.exists(path) else "no such file or folder"
    raise InputError(f"{spec}: {problem}: give .npz, .npy, a folder of images or package.module:function")


def from_batches(data: Any, inputs: Inputs, preprocess: Preprocess | None = None) -> Dataset:
    """Arrays in memory, or made on the fly: an iterable of {input name: array}, optionally with labels in
    `y`, or a function that returns such an iterable anew (a mere iterator can be read only once).

    Arrays have a batch axis of any length, or none (then they are one sample). Where the graph has one input,
    the key may be `x`, and a bare array may stand for the dict.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, Mapping | np.ndarray):
        data = [data]
    if not callable(data) and not isinstance(data, Iterable):
        raise InputError(f"it is of type {type(data).__name__}: give an iterable of {{input name: array}}")
    return Dataset(Batches("the data", data, inputs), inputs, _transforms(inputs, preprocess))


def _open_images(folder: Path, inputs: Inputs, transforms: dict[str, InputTransform]) -> Dataset:
    if len(inputs) > 1:
        raise InputError(f"{folder}: images fill one input, the graph has {', '.join(inputs)}: give an .npz")
    [(name, (shape, _))] = inputs.items()
    channels = {"NCHW": shape[1], "NHWC": shape[3]} if len(shape) == 4 else {}
    layout = transforms[name].layout or next((key for key, n in channels.items() if n in (1, 3)), None)
    if layout is None or channels.get(layout) not in (1, 3):
        raise InputError(f"{folder}: images need an input of 1 or 3 channels, '{name}' has shape {shape}")
    mode = "L" if channels[layout] == 1 else "RGB"
    source = ImageFolder(folder, name, mode)
    return _first_checked(Dataset(source, inputs, {name: replace(transforms[name], layout=layout)}))


def _transforms(inputs: Inputs, preprocess: Preprocess | None) -> dict[str, InputTransform]:
    return preprocess.bind(list(inputs)) if preprocess else {name: InputTransform() for name in inputs}


def _first_checked(dataset: Dataset) -> Dataset:
    for _ in dataset:
        break
    return dataset


def _label(raw: RawSample) -> Label:
    """A number where the label is one value, else its array."""
    if raw.label is None:
        return None
    array = np.asarray(raw.label)
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise InputError(f"{raw.where}: the label is not a finite number: correct or remove y")
    if array.size != 1:
        return array
    return int(array.item()) if array.dtype.kind != "f" else float(array.item())
