"""Compiled code on every board of a fleet: the same outputs everywhere, or which board differs, and where."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from .artifact import CompiledModel
from .backends.static_c.taps import TAPS
from .errors import InputError
from .executors.boards.fleet import FleetBoard, LoadedLibrary, fleet
from .golden_check import golden_samples

LIBRARY = "model.so"
Sample = Mapping[str, np.ndarray]
Track = Callable[[Iterable[Any], "int | None"], Iterable[Any]]


@dataclass(frozen=True)
class BoardCheck:
    """One model on one board. golden: SHA-256 of all outputs there; differs: the first tensor that is not as
    on the boards that are right, as "layer NAME" or "output NAME"; None where all are."""

    board: str
    output: str
    golden: str
    samples: int
    values: int
    mismatches: int
    differs: str | None = None

    def row(self) -> dict[str, Any]:
        """For JSON; `executor` as in that of a check here."""
        return {"executor": self.board, **asdict(self)}


@dataclass(frozen=True)
class _Found:
    """A check, and what it takes to look closer: the first sample with a difference, and the output."""

    check: BoardCheck
    loaded: LoadedLibrary
    sample: Sample | None
    where: str


def check_fleet(
    models: Sequence[CompiledModel], on: str, track: Track = lambda items, total: items
) -> list[BoardCheck]:  # fmt: skip
    """Every model on its golden samples, on every free board of a tracker, board by board at once.

    Raises InputError where a model has no library or no samples, HwptqError where a board is lost.
    """
    for model in models:
        if not (model.folder / LIBRARY).is_file():
            raise InputError(f"{model.folder}: has no {LIBRARY}, which boards of a tracker run")
    with fleet(on) as boards, ThreadPoolExecutor(len(boards)) as pool:
        jobs = [(board, models) for board in boards]
        rows = [found for batch in track(pool.map(_on_board, jobs), len(jobs)) for found in batch]
        return [_named(found, rows, models) for found in rows]


def _on_board(job: tuple[FleetBoard, Sequence[CompiledModel]]) -> list[_Found]:
    board, models = job
    return [_checked(model, board, number) for number, model in enumerate(models)]


def _checked(model: CompiledModel, board: FleetBoard, number: int) -> _Found:
    library = board.load(model.folder / LIBRARY, number)
    seen, first, where = sha256(), None, ""
    samples = values = mismatches = 0
    for inputs, wanted in golden_samples(model):
        arrays = library.call("main", model.inputs, inputs)
        samples += 1
        for (name, expected), array in zip(wanted.items(), arrays, strict=True):
            seen.update(array.tobytes())
            differ = _differing(expected, array)
            values, mismatches = values + expected.size, mismatches + differ
            if differ and first is None:
                first, where = inputs, f"output {name}"
    check = BoardCheck(board.address, str(model.folder), seen.hexdigest(), samples, values, mismatches)
    return _Found(check, library, first, where)


def _named(found: _Found, others: Sequence[_Found], models: Sequence[CompiledModel]) -> BoardCheck:
    """The check with the first tensor that differs, found beside a board that is right."""
    if found.sample is None:
        return found.check
    same = [o for o in others if o.check.output == found.check.output and o.sample is None]
    names = _tensors(Path(found.check.output))
    if not same or not names:
        return replace(found.check, differs=found.where)
    model = next(model for model in models if str(model.folder) == found.check.output)
    wrong, right = (_twice(side.loaded, model, found.sample) for side in (found, same[0]))
    for name, first, second, a, b in zip(names, *wrong, *right, strict=True):
        settled = _equal(a, b)
        if np.any(settled & ~_equal(first, a) & ~_equal(second, a)):
            return replace(found.check, differs=f"layer {name}")
    return replace(found.check, differs=found.where)


def _twice(library: LoadedLibrary, model: CompiledModel, sample: Sample) -> tuple[list[np.ndarray], ...]:
    """All tensors, twice, with other samples in between.

    Bytes that kernels pass over, such as those that only fill up a row, hold what was there before: they are
    told by changing from one time to the other.
    """
    first = library.call(TAPS, model.inputs, sample)
    for other, _ in golden_samples(model):
        library.call(TAPS, model.inputs, other)
    return first, library.call(TAPS, model.inputs, sample)


def _tensors(folder: Path) -> list[str]:
    """What `taps` of the library gives; empty where it has none."""
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        return [str(name) for name in report.get("tensors", ())]
    except (OSError, ValueError, AttributeError):
        return []


def _differing(a: np.ndarray, b: np.ndarray) -> int:
    """Values that differ in their bits; all where the arrays are of other kinds."""
    return a.size - int(np.count_nonzero(_equal(a, b)))


def _equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two arrays have the same bits; nowhere if they are of other kinds."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return np.zeros(a.shape, bool)
    word = f"u{a.dtype.itemsize}"
    return np.asarray(np.ascontiguousarray(a).view(word) == np.ascontiguousarray(b).view(word))
