"""Runs cases in a process that is forked from a warm one: its death or silence is a finding, not the end."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from case import Kind, Outcome, Run

from hwptq.cli.explain import explained

SECONDS = 60.0  # that a case may take
_MEMORY = 6 << 30  # bytes that a worker may take, beside what it starts with
_CASES = 100  # of one process: what libraries keep adds up
#: What cases need, imported before their processes are forked; of packages, all modules.
_WARM = (
    "hwptq.flow", "hwptq.cli.terminal", "hwptq.frontends.onnx", "hwptq.backends.static_c", "onnx.reference",
    "hwptq.kernels", "hwptq.executors", "hwptq.frontends", "hwptq.report", "PIL.Image", "typer",
    "pydantic", "onnxruntime",
)  # fmt: skip
_FOREIGN = (".ses",)  # of ONNX Runtime, in the folder for temporary files


@dataclass(frozen=True)
class Done:
    """A case that was run; `problem` is "" where all is well."""

    kind: str
    seed: int
    code: int
    seconds: float
    problem: str
    said: str

    @property
    def line(self) -> str:
        """One line of the log."""
        return json.dumps(vars(self))


def run_cases(kind: Kind, seeds: Sequence[int], folder: Path, seconds: float = SECONDS) -> Iterator[Done]:
    """Run a kind's cases one after another, each in an empty folder/case."""
    _warm()
    waiting = list(seeds)
    while waiting:
        worker = _Worker(kind, waiting[:_CASES], folder)
        try:
            for done in worker.results(seconds):
                waiting.pop(0)
                yield done
        finally:
            worker.end()


def run_case(kind: Kind, seed: int, folder: Path) -> Done:
    """One case, in this process."""
    place = folder / "case"
    shutil.rmtree(folder, ignore_errors=True)
    for path in (folder / "temporary", place):
        path.mkdir(parents=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "temporary")
    start = time.monotonic()
    run = kind.prepare(random.Random(f"{kind.name} {seed}"), place)
    outcome = _outcome(run, folder)
    return Done(
        kind.name, seed, outcome.code, round(time.monotonic() - start, 3), kind.judge(outcome),
        (outcome.stderr or outcome.stdout)[-400:],
    )  # fmt: skip


def _warm() -> None:
    for name in _WARM:
        with contextlib.suppress(ImportError):
            module = import_module(name)
            for inner in iter_modules(getattr(module, "__path__", ())) if "hwptq" in name else ():
                import_module(f"{name}.{inner.name}")


class _Worker:
    """A forked process that writes a line for each case."""

    def __init__(self, kind: Kind, seeds: Sequence[int], folder: Path):
        self._kind, self._seeds, self._folder = kind, seeds, folder
        self._reading, writing = os.pipe()
        sys.stdout.flush()
        self._process = os.fork()
        if not self._process:
            with contextlib.suppress(BaseException):
                os.setpgid(0, 0)
                _limit_memory()
                with os.fdopen(writing, "w") as pipe:
                    for seed in seeds:
                        print(run_case(kind, seed, folder).line, file=pipe, flush=True)
            os._exit(0)
        os.close(writing)

    def results(self, seconds: float) -> Iterator[Done]:
        """What the process says; of one that dies or is silent, that."""
        text, left = b"", list(self._seeds)
        while left:
            start = time.monotonic()
            ready, _, _ = select.select([self._reading], [], [], seconds)
            got = os.read(self._reading, 1 << 16) if ready else b""
            if not got:
                how = "the process died" if ready else f"no end after {seconds:g} s"
                spent = round(time.monotonic() - start, 3)
                yield Done(self._kind.name, left.pop(0), -1, spent, how, self._noise())
                return
            *lines, text = (text + got).split(b"\n")
            for line in lines:
                left.pop(0)
                yield Done(**json.loads(line))

    def _noise(self) -> str:
        with contextlib.suppress(OSError):
            return (self._folder / "libraries").read_text(errors="replace")[-400:]
        return ""

    def end(self) -> None:
        """End the process and what it started."""
        os.close(self._reading)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[5])  # that can be written; V8 only reserves many
    most = pages * resource.getpagesize() + _MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _outcome(run: Run, folder: Path) -> Outcome:
    """Run it as the command does: what libraries print goes elsewhere."""
    place = folder / "case"
    before = set(place.iterdir())
    kept = os.dup(2), sys.stdout, sys.stderr, Path.cwd()
    log = os.open(folder / "libraries", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 2)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    os.chdir(folder)
    with (folder / "stdout").open("w+") as out, (folder / "stderr").open("w+") as err:
        sys.stdout, sys.stderr = out, err
        try:
            code = _code(run)
        finally:
            os.dup2(kept[0], 2)
            os.close(kept[0])
            os.close(log)
            sys.stdout, sys.stderr = kept[1:3]
            os.chdir(kept[3])
        texts = [_text(file) for file in (out, err)]
    return Outcome(code, *texts, tuple(_left(folder, before, code)))


def _code(run: Run) -> int:
    """The exit code that a run ends with; exceptions of the Python interface are told as the command's."""
    try:
        run()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        code, text = explained(error)
        print(f"hwptq: {text}", file=sys.stderr)
        return code
    return 0


def _text(file: Any) -> str:
    file.flush()
    file.seek(0)
    return str(file.read())


def _left(folder: Path, before: set[Path], code: int) -> Iterator[str]:
    """Temporary files, and new files beside the inputs other than a whole output."""
    yield from (p.name for p in (folder / "temporary").iterdir() if p.name not in _FOREIGN)
    for path in set((folder / "case").iterdir()) - before:
        whole = path.name == "out" and (path / "metadata.json").is_file() and code in (0, 5, 6)
        if not whole:
            yield path.name
