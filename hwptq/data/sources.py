"""Where raw samples come from: array files, batches in memory, functions of the user; images.py has folders.

Each source yields RawSample after RawSample, with one of them in memory at a time.
"""

from __future__ import annotations

import itertools
import math
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from hwptq.cache.digest import NoDigest, digest, file_digest
from hwptq.errors import HwptqError, InputError
from hwptq.no_device import check_no_device
from hwptq.user_code import user_object

from .preprocess import batch_of, sample_shape
from .said import one_line

Inputs = Mapping[str, tuple[tuple[int, ...], str]]  # graph input -> (shape with batch 1, dtype)


@dataclass(frozen=True)
class RawSample:
    """One sample as stored, without a batch axis; `where` names it in messages."""

    arrays: dict[str, np.ndarray]
    label: Any
    where: str


class Source(Protocol):
    """Where raw samples come from. `count` is None where it isn't known beforehand; `once`: a second
    iteration is an error; `identity`: a hash of all that it holds, None where it may yield other samples the
    next time."""

    name: str
    count: int | None
    once: bool

    @property
    def identity(self) -> str | None: ...

    def __iter__(self) -> Iterator[RawSample]: ...

    def part(self, first: int, end: int | None) -> Iterator[RawSample]:
        """The samples from `first` up to `end` or the last."""


class ArrayFile:
    """An .npz (key = input name, or x for the only input; labels in y) or an .npy (the only input)."""

    once = False

    def __init__(self, path: Path, names: list[str]) -> None:
        self.name, self._path, self._names = str(path), path, names
        with ExitStack() as stack:
            counts = {key: member.count for key, member in self._open(stack).items()}
        self.count: int | None = _equal(counts, self.name)

    def __iter__(self) -> Iterator[RawSample]:
        return self.part(0, None)

    def part(self, first: int, end: int | None) -> Iterator[RawSample]:
        with ExitStack() as stack:
            members = self._open(stack)
            for index in range((self.count or 0) if end is None else min(end, self.count or 0)):
                arrays = {name: member.read(index) for name, member in members.items()}
                if index < first:
                    continue
                label = None if "y" in self._names else arrays.pop("y", None)
                yield RawSample(arrays, label, f"{self.name}: sample {index}")

    @property
    def identity(self) -> str | None:
        return digest(self._names, file_digest(self._path))

    def _open(self, stack: ExitStack) -> dict[str, _Member]:
        try:
            file = stack.enter_context(check_no_device(self._path).open("rb"))
        except (OSError, ValueError) as error:
            raise InputError(f"{self.name}: can't be read ({one_line(error)})") from error
        if self._path.suffix == ".npz":
            return self._open_members(file, stack)
        if len(self._names) > 1:
            raise InputError(
                f"{self.name}: an .npy is one array, but the graph has the inputs {', '.join(self._names)}: "
                "give an .npz with these keys"
            )
        return {self._names[0]: _Member(file, self.name)}

    def _open_members(self, file: IO[bytes], stack: ExitStack) -> dict[str, _Member]:
        try:
            archive = stack.enter_context(zipfile.ZipFile(file))
        except Exception as error:  # zipfile and zlib raise a dozen classes for damaged files
            raise InputError(f"{self.name}: not an .npz, or cut short ({one_line(error)})") from error
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        chosen = {name: _key(name, self._names, members, self.name) for name in self._names}
        if "y" in members and "y" not in chosen:
            chosen["y"] = "y"
        opened = {}
        for name, key in chosen.items():
            where = f"{self.name}, array '{key}'"
            try:
                opened[name] = _Member(stack.enter_context(archive.open(members[key])), where)
            except Exception as error:
                raise InputError(f"{where}: can't be read ({one_line(error)}): save it anew") from error
        return opened


class _Member:
    """An .npy stream, read one sample after the other."""

    def __init__(self, stream: IO[bytes], where: str) -> None:
        self._stream, self._where = stream, where
        shape, fortran, self._dtype = self._header()
        if self._dtype.hasobject:
            raise InputError(f"{where}: pickled Python objects aren't read: save an array of numbers")
        if self._dtype.kind not in "biuf":
            raise InputError(f"{where}: holds {self._dtype} data: only numbers are read")
        if not shape:
            raise InputError(f"{where}: is a single value: the first axis must count the samples")
        self.count, self._shape = shape[0], shape[1:]
        # In Fortran order the values of one sample are scattered over the whole file.
        self._whole = self._take(shape, "F", 0) if fortran and len(shape) > 1 else None

    def read(self, index: int) -> np.ndarray:
        """Sample `index`; to be called in order."""
        return self._take(self._shape, "C", index) if self._whole is None else self._whole[index]

    def _header(self) -> tuple[tuple[int, ...], bool, np.dtype]:
        try:
            version = np.lib.format.read_magic(self._stream)
            if version == (1, 0):
                return np.lib.format.read_array_header_1_0(self._stream)
            return np.lib.format.read_array_header_2_0(self._stream)
        except Exception as error:
            raise InputError(f"{self._where}: not a numpy array, or cut short ({one_line(error)})") from error

    def _take(self, shape: tuple[int, ...], order: Any, index: int) -> np.ndarray:
        size = math.prod(shape) * self._dtype.itemsize
        try:
            data = self._stream.read(size)
        except Exception as error:
            raise InputError(f"{self._where}: damaged at sample {index} ({one_line(error)})") from error
        if len(data) < size:
            raise InputError(f"{self._where}: cut short at sample {index}: copy or save the file anew")
        return np.frombuffer(data, self._dtype).reshape(shape, order=order)


class Batches:
    """An iterable of {input name: array}, or a function that returns one; batches are split into samples."""

    def __init__(self, name: str, data: Any, inputs: Inputs) -> None:
        self.name, self._data, self._inputs = name, data, inputs
        self.once, self._spent = isinstance(data, Iterator), False
        known = isinstance(data, list | tuple)
        self.count: int | None = sum(1 for _ in self) if known else None

    def __iter__(self) -> Iterator[RawSample]:
        data = self._data if isinstance(self._data, Iterable) else self._data()
        if self.once:
            if self._spent:
                raise InputError(f"{self.name}: an iterator can be read only once: give a list or a function")
            self._spent = True
        if not isinstance(data, Iterable):
            raise InputError(f"{self.name}: the function returned {type(data).__name__}, not an iterable")
        start = 0
        for batch in data:
            samples = self._split(batch, start)
            start += len(samples)
            yield from samples

    def part(self, first: int, end: int | None) -> Iterator[RawSample]:
        return itertools.islice(self, first, end)

    @property
    def identity(self) -> str | None:
        try:
            return digest(self._data, self._inputs) if isinstance(self._data, list | tuple) else None
        except NoDigest:
            return None

    def _split(self, batch: Any, start: int) -> list[RawSample]:
        where, names = f"{self.name}: sample {start}", list(self._inputs)
        if hasattr(batch, "__array__") and len(names) == 1:
            batch = {"x": batch}
        if not isinstance(batch, Mapping):
            raise InputError(f"{where}: is of type {type(batch).__name__}: give {{input name: array}}")
        arrays = {name: self._array(batch[_key(name, names, batch, where)], name, where) for name in names}
        counts = {name: len(array) for name, array in arrays.items()}
        labels = None
        if "y" in batch and "y" not in names:
            labels = np.atleast_1d(np.asarray(batch["y"]))
            counts["y"] = len(labels)
        return [
            RawSample(
                {name: array[i] for name, array in arrays.items()},
                None if labels is None else labels[i],
                f"{self.name}: sample {start + i}",
            )
            for i in range(_equal(counts, where))
        ]

    def _array(self, value: Any, name: str, where: str) -> np.ndarray:
        """With its batch axis, which may be left out: [3, 32, 32] for an input [1, 3, 32, 32]."""
        shape = sample_shape(self._inputs[name][0])
        try:
            array = np.asarray(value)
        except (ValueError, TypeError) as error:
            raise InputError(f"{where}, input '{name}': not an array ({one_line(error)})") from error
        if array.ndim not in (len(shape), len(shape) + 1):
            problem = f"has shape {array.shape}, the graph expects {batch_of(shape)}"
            raise InputError(f"{where}, input '{name}': {problem}")
        return array if array.ndim > len(shape) else array[np.newaxis]


def is_function(spec: str) -> bool:
    """Whether `spec` has the form package.module:function."""
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", spec) is not None


def user_function(spec: str) -> Callable[[], Iterator[Any]]:
    """The function `package.module:function`, whose every exception becomes an InputError."""
    try:
        function = user_object(spec)
    except Exception as error:
        raise InputError(f"{spec}: can't be imported ({type(error).__name__}: {one_line(error)})") from error
    if not callable(function):
        raise InputError(f"{spec}: is of type {type(function).__name__}, not a function")

    def batches() -> Iterator[Any]:
        try:
            yield from function()
        except HwptqError:
            raise
        except Exception as error:
            raise InputError(f"{spec}: raised {type(error).__name__}: {one_line(error)}") from error

    return batches


def _equal(counts: Mapping[str, int], where: str) -> int:
    """The number of samples, which all arrays must share."""
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"'{key}' has {count}" for key, count in counts.items())
        raise InputError(f"{where}: the arrays differ in their number of samples: {listed}")
    return next(iter(counts.values()))


def _key(name: str, names: list[str], present: Iterable[str], where: str) -> str:
    """The key that holds input `name`: its own, or x where the graph has no other input."""
    if name in present:
        return name
    if len(names) == 1 and "x" in present:
        return "x"
    wanted = f"'{name}'" + (" or 'x'" if len(names) == 1 else "")
    raise InputError(
        f"{where}: no array {wanted} for that graph input; it has {', '.join(present) or 'none'}"
    )
