"""sweep: every compilation of a matrix, each by whoever is free; what came of each is a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hwptq.cache.content import JSON
from hwptq.cache.digest import NoDigest, digest, file_digest
from hwptq.errors import HwptqError
from hwptq.flow import compile
from hwptq.open_workers import open_workers
from hwptq.progress import Progress
from hwptq.report.accuracy import drop
from hwptq.targets import load_target
from hwptq.user_cache import open_cache
from hwptq.workers.workers import Task

from .matrix import Run

REPORT = "report.json"


def sweep(
    runs: Sequence[Run], output: Path, cluster: str | None = None, cache: bool = False,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """A row for each run, in their order; its files lie in a folder below `output`.

    What can't be compiled is a row too, with its error and exit code. cluster: see --cluster; cache: whether
    results are kept, so that a sweep that was killed goes on with what is missing. Raises InputError where a
    target is unknown, or a worker lacks what one needs.
    """
    progress = progress or Progress()
    targets = {run.target: load_target(run.target) for run in runs}
    output.mkdir(parents=True, exist_ok=True)
    seen = [path for run in runs for path in (run.file, run.calibration_data, run.evaluation_data)]
    with open_workers(cluster, list(targets.values()), [*seen, output]) as workers, progress.stage("sweep"):
        order = apart(runs, [bool(targets[run.target].toolchain.run) for run in runs])
        found = workers.map(_Compilation(output.resolve(), cache), [runs[i] for i in order])
        rows = dict(zip(order, progress.track(found, len(runs)), strict=True))
        return [rows[i] for i in range(len(runs))]


def apart(runs: Sequence[Run], slow: Sequence[bool]) -> list[int]:
    """Their numbers in the order of work: one of each model, then the next of each, what is slow first.

    Those of a model share ranges and roundings, which two workers at a time would both compute. `slow`: an
    emulator runs their programs; at the end they would keep one worker busy while the others have nothing.
    """
    before: Counter[str] = Counter()
    turns = {}
    for i in sorted(range(len(runs)), key=lambda i: not slow[i]):
        turns[i] = before[runs[i].model]
        before[runs[i].model] += 1
    return sorted(turns, key=lambda i: (turns[i], not slow[i], i))


@dataclass(frozen=True)
class _Compilation(Task[Run, "dict[str, Any]"]):
    """Compiles runs into folders below `output`."""

    output: Path
    cache: bool

    def bench(self) -> None:
        return None

    def work(self, bench: None, item: Run) -> dict[str, Any]:
        cache, folder = open_cache(self.cache), self.output / item.folder
        causes = (_given(item), load_target(item.target), replace(item.options, command=()), str(folder))
        row = cache.recall("sweep", causes, JSON, lambda: self._row(item, folder))
        there = row["error"] or _files(folder) == row["files"]
        return row if there else self._row(item, folder)

    def _row(self, run: Run, folder: Path) -> dict[str, Any]:
        row: dict[str, Any] = {
            "model": run.model, "target": run.target, "recipe": run.recipe, "output": run.folder,
            "error": None, "exit_code": 0, "files": None,
        }  # fmt: skip
        options = replace(run.options, cache=self.cache)
        data = run.calibration_data, run.evaluation_data, run.preprocess
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            report = compile(run.file, run.target, *data, folder, options).report
        except HwptqError as error:
            return {**row, "error": str(error), "exit_code": error.exit_code}
        accuracy = report["accuracy"]
        return {
            **row,
            "metric": accuracy["metric"],
            "samples": accuracy["samples"],
            "float32": accuracy["float32"],
            "emitted": accuracy.get("emitted"),
            "reference": accuracy["reference"],
            "drop": drop(accuracy),
            "weight_bytes": report["weight_bytes"]["quantized"],
            "mismatches": report["bit_exact"]["mismatches"],
            "warnings": len(report["warnings"]),
            "files": _files(folder),
        }


def _files(folder: Path) -> str:
    """A hash of what was compiled into a folder: its files, without the report, which holds times."""
    if not (folder / REPORT).is_file():
        return ""
    return digest([(name, known) for name, known in _content(folder) if Path(name).stem != Path(REPORT).stem])


def _given(run: Run) -> list[Any]:
    """What the files of a run hold; a function of the user's has no hash."""
    return [_content(Path(path)) if path else None for path in
            (run.file, run.calibration_data, run.evaluation_data, run.preprocess)]  # fmt: skip


def _content(path: Path) -> Any:
    """A hash of a file, or of all files of a folder; of what is no path, what has none."""
    if path.is_dir():
        return [(str(p.relative_to(path)), file_digest(p)) for p in sorted(path.rglob("*")) if p.is_file()]
    try:
        return file_digest(path)
    except NoDigest:
        return _Unknown()


@dataclass(frozen=True)
class _Unknown:
    """What nobody knows anything of."""

    identity: str | None = None
