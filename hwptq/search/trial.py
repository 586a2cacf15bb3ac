"""Trials of --max-drop: a choice of dtypes becomes code, whose answers for data say what is lost.

Both are done by workers: the code of one choice by one of them, and it answers for shards of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tvm

from hwptq.backends.backend import backend_of
from hwptq.backends.program import Program
from hwptq.bitwidths.belief import believed_drop
from hwptq.calibration import CalibrationStats
from hwptq.data.dataset import Dataset
from hwptq.errors import InputError
from hwptq.evaluate.steps import Steps
from hwptq.executors.executor import Executor, executor_for
from hwptq.passes.stored_bytes import stored_bytes
from hwptq.pipeline.ir_dump import IrDump
from hwptq.pipeline.stages import Prepared, insert, lower
from hwptq.pipeline.step import Job
from hwptq.progress import Progress, Ticks
from hwptq.quant.layer_rounding import RoundingMethod, rounding_method
from hwptq.report.accuracy import check_most, drop, load_metric
from hwptq.report.verify import emulates, run_emitted
from hwptq.workers.workers import Here, Task, shards

from .choose import BitWidths
from .known_trials import Found, Lost, TrialCauses, recalled

#: A label, and the outputs for its sample.
Answer = tuple[Any, "list[np.ndarray]"]


@dataclass(frozen=True)
class Code:
    """What answers for a choice: a program, or the module that stands in for it where it can't be run here.

    files: those of the program, by name: the folder that it was built in need not be seen by others.
    """

    model: tvm.IRModule | None = None
    program: Program | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    weight_bytes: int = 0

    @classmethod
    def built(cls, program: Program, folder: Path) -> Code:
        """A program with its files."""
        others = {p.name for p in (program.object, program.header) if p is not None}
        files = {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name not in others}
        return cls(
            None, replace(program, object=None, header=None, library=None), files, program.weight_bytes
        )

    def unpacked(self, folder: Path) -> Program:
        """The program, in a folder."""
        assert self.program is not None
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
            (folder / name).chmod(0o755)
        there = self.program.program
        return replace(self.program, program=folder / there.name if there else None)


class Trial:
    """Runs the code of one choice after another on the same data. Keeps the outputs of float32; what the
    cache knows is not run again.

    Attributes, of the last run: accuracy (as in the report), weight_bytes of its program.
    Raises InputError where nothing here can run it.
    """

    def __init__(self, prepared: Prepared, job: Job, outputs: tuple[str, ...], data: Dataset):
        reason = None if job.options.executor else backend_of(job.target).why_not_run()
        emulated = reason is not None and emulates(job.target)
        if reason and not emulated:
            raise InputError(f"--max-drop needs code that runs here ({reason}); or give a --budget")
        self._prepared, self._data = prepared, data
        self._progress, self._options, self._cache = job.progress, job.options, job.cache
        self._causes = TrialCauses(prepared, job, data)
        method = type(rounding_method(job.options.recipe.rounding))
        self._coding = _Coding(prepared.stats, replace(job, dump=IrDump()), outputs, emulated, method)
        divided = job.samples.divisible and data.divisible
        self._coders = job.workers if divided else Here()
        self._whole = not divided or job.options.executor is not None or not Steps(prepared.float32).alone
        self._runners = Here() if self._whole else job.workers
        self._begun: dict[tuple[Any, ...], Callable[[], Code]] = {}
        self._exact: list[list[np.ndarray]] = []
        self._best: float | None = None  # what float32 scores
        self.accuracy: dict[str, Any] = {}
        self.weight_bytes = 0

    def foresee(self, choices: Sequence[BitWidths]) -> None:
        """These, the first of all, may be tried next, and what else was foreseen may not."""
        wanted = {_key(widths): widths for widths in choices}
        self._begun = {key: begun for key, begun in self._begun.items() if key in wanted}
        for key, widths in wanted.items():
            if key not in self._begun:
                self._begun[key] = self._coders.start(self._coding, widths.recorded(self._prepared).float32)

    def loss(self, widths: BitWidths) -> Lost:
        """What the emitted code of a choice, or what stands in for it, loses against float32."""
        causes = self._causes.of(widths.recorded(self._prepared).float32)
        found = recalled(self._cache, causes, lambda: self._run(widths))
        self.weight_bytes, self.accuracy = found.weight_bytes, found.accuracy
        self._best = float(self.accuracy["float32"])
        return found.lost

    def _run(self, widths: BitWidths) -> Found:
        """Its code is made and answers."""
        if _key(widths) not in self._begun:
            self.foresee([widths])
        if not self._exact:
            self._score_float32()
        code = self._begun.pop(_key(widths))()
        score = load_metric(self._options.metric)
        score.best = self._best
        labels: list[Any] = []
        answers: list[int] = []
        with self._progress.stage("search"):
            for exact, (label, emitted) in zip(self._exact, self._answers(code), strict=True):
                score.add(label, {"float32": exact, "emitted": emitted})
                labels.append(label)
                answers.append(int(emitted[0].argmax()))
        accuracy = score.report()
        lost = drop(accuracy)
        assert lost is not None  # as float32 had a score
        if accuracy["metric"] != "top1":
            return Found(accuracy, code.weight_bytes, Lost(lost))
        outputs = np.concatenate([arrays[0] for arrays in self._exact])
        believed = believed_drop(outputs, np.asarray(labels), np.asarray(answers))
        return Found(accuracy, code.weight_bytes, Lost(lost, believed))

    def _score_float32(self) -> None:
        """Keep what float32 answers, and what it scores. Raises InputError for a --max-drop that it makes
        meaningless."""
        score = load_metric(self._options.metric)
        with self._progress.stage("score float32"):
            for label, outputs in self._answers(Code(self._prepared.float32)):
                score.add(label, {"float32": outputs})
                self._exact.append(outputs)
        accuracy = score.report()
        if accuracy["metric"] == "sqnr_db":
            raise InputError("--max-drop needs labels or a --metric; or give a --budget")
        check_most(self._options.max_drop, accuracy["metric"], accuracy["float32"])
        self._best = float(accuracy["float32"])

    def _answers(self, code: Code) -> Iterator[Answer]:
        """Of all samples, in their order."""
        tick = Ticks(self._progress.track, self._data.count)
        task = _Answers(code, self._data, self._options.executor, tick)
        for part in self._runners.map(task, shards(None if self._whole else self._data.count)):
            if self._runners.remote:
                tick(len(part))
            yield from part


def _key(widths: BitWidths) -> tuple[Any, ...]:
    return tuple(widths.pairs.items())


@dataclass(frozen=True)
class _Coding(Task[tvm.IRModule, Code]):
    """Makes code of float modules on which dtypes are recorded."""

    stats: CalibrationStats
    job: Job
    outputs: tuple[str, ...]
    emulated: bool
    method: type[RoundingMethod]  # of the recipe, so that a worker has it too

    def bench(self) -> None:
        return None

    def work(self, bench: None, item: tvm.IRModule) -> Code:
        graphs = lower(insert(Prepared(item, self.stats), self.job), self.job)
        if self.emulated:
            return Code(graphs.integer, weight_bytes=stored_bytes(graphs.kernels, self.job.target))
        with TemporaryDirectory(prefix="hwptq-") as folder:
            backend = backend_of(self.job.target, self.job.cache)
            program = backend.build_program(graphs.kernels, self.outputs, "trial", Path(folder))
            return Code.built(program, Path(folder))

    def sent(self) -> _Coding:
        return replace(self, job=replace(self.job, progress=Progress(), workers=Here()))


@dataclass(frozen=True)
class _Answers(Task["tuple[int, int | None]", "list[Answer]"]):
    """The answers of some code for parts of the data."""

    code: Code
    data: Dataset
    executor: str | None
    tick: Ticks | None = None

    def bench(self) -> _Bench:
        return _Bench(self.code, self.executor)

    def work(self, bench: _Bench, item: tuple[int, int | None]) -> list[Answer]:
        found = []
        for answer in bench.answers(self.data.part(*item)):
            found.append(answer)
            if self.tick:
                self.tick()
        return found

    def sent(self) -> _Answers:
        return replace(self, tick=None)

    def leave(self, bench: _Bench) -> None:
        bench.close()


class _Bench:
    """What runs the code."""

    def __init__(self, code: Code, executor: str | None):
        self._stack = ExitStack()
        self._steps = Steps(code.model) if code.model is not None else None
        self._running: Executor | None = None
        if self._steps is None:
            folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="hwptq-")))
            self._running = executor_for(code.unpacked(folder), executor)
            self._stack.callback(self._running.close)

    def close(self) -> None:
        self._stack.close()

    def answers(self, data: Dataset) -> Iterator[Answer]:
        """Of some samples."""
        if self._steps is not None:
            yield from ((sample.label, self._steps.run(sample.inputs)) for sample in data)
            return
        for sample, emitted in run_emitted(self._running, data):
            assert emitted is not None
            yield sample.label, emitted
