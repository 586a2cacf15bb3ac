"""Folders of images, with labels: by the file labels.csv, or by the folders of classes that they lie in."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path

from hwptq.cache.digest import digest, file_digest
from hwptq.errors import InputError

from .preprocess import read_image
from .said import one_line
from .sources import RawSample

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
LABELS = "labels.csv"

Number = int | float


class ImageFolder:
    """The images of a folder in the order of their names, with the labels of labels.csv where it exists.

    Where it holds none itself, those of its folders, each of which is a class: the first image of each, then
    the second, so that the first samples are of all classes. A class has the number of its folder in the
    order of their names, or the one that is its name.
    """

    once = False

    def __init__(self, folder: Path, name: str, mode: str) -> None:
        self.name, self._input, self._mode = str(folder), name, mode
        files, labels = _listed(folder)
        self._files = [(file, file.relative_to(folder).as_posix()) for file in files]
        self.count: int | None = len(files)
        self._labels = _read_labels(folder / LABELS, {name for _, name in self._files}) or labels

    def __iter__(self) -> Iterator[RawSample]:
        return self.part(0, None)

    def part(self, first: int, end: int | None) -> Iterator[RawSample]:
        for file, name in self._files[first:end]:
            yield RawSample({self._input: read_image(file, self._mode)}, self._labels.get(name), str(file))

    @property
    def identity(self) -> str | None:
        files = [(name, file_digest(file)) for file, name in self._files]
        return digest(files, self._labels, self._input, self._mode)


def _listed(folder: Path) -> tuple[list[Path], dict[str, Number]]:
    """The images of a folder in their order; and, where they lie in folders of classes, the class of each."""
    if files := _images(folder):
        return files, {}
    by_class = {sub: _images(sub) for sub in _entries(folder) if sub.is_dir()}
    if not any(by_class.values()):
        raise InputError(f"{folder}: holds no images, and no folders of them: give at least one")
    if empty := [sub for sub, images in by_class.items() if not images]:
        raise InputError(
            f"{empty[0]}: holds no image, but the folders beside it do: each is a class, so remove it"
        )
    numbers = _numbers([sub.name for sub in by_class])
    labels = {
        f"{sub.name}/{file.name}": numbers[sub.name] for sub, files in by_class.items() for file in files
    }
    turns = zip_longest(*by_class.values())
    return [file for file in chain.from_iterable(turns) if file is not None], labels


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, sorted, but for what is hidden."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: can't be read ({one_line(error)})") from error


def _images(folder: Path) -> list[Path]:
    return [entry for entry in _entries(folder) if entry.suffix.lower() in SUFFIXES]


def _numbers(names: Sequence[str]) -> dict[str, Number]:
    """The number of each class: 10 is no second class, between 1 and 2, where all are called by numbers."""
    if all(name.isascii() and name.isdigit() for name in names):
        return {name: int(name) for name in names}
    return {name: number for number, name in enumerate(names)}


def _read_labels(path: Path, images: set[str]) -> dict[str, Number]:
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: can't be read ({one_line(error)})") from error
    if header != ["file", "label"]:
        raise InputError(f"{path}: the first line must be file,label, not {','.join(header)}")
    labels: dict[str, Number] = {}
    for row in rows:
        if len(row) != 2 or (label := _number(row[1])) is None:
            raise InputError(f"{path}: '{','.join(row)}' is not a file name and a number")
        if row[0] not in images:
            raise InputError(f"{path}: names '{row[0]}', but there is no such image in the folder")
        if row[0] in labels:
            raise InputError(f"{path}: labels '{row[0]}' twice")
        labels[row[0]] = label
    if missing := sorted(images - labels.keys()):
        raise InputError(f"{path}: {len(missing)} of {len(images)} images lack a label, such as {missing[0]}")
    return labels


def _number(text: str) -> Number | None:
    try:
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        return None
