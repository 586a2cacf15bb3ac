"""Two workers against one, and the same bits whoever computes, however many are killed.

python benchmarks/cluster_speed.py [sensitivity] [sweep] [hashes] [kills] [resume] [--results FILE.json]
    [--workers 2] [--rounds 1] [--models NAME …] [--targets NAME …] [--samples 100]
    [--kill-every 20]

sensitivity, sweep: --cluster local:N against local:1, alternated, for the sensitivity of MobileNetV1 (its
stage, and the whole command), and for 3 models by 4 targets; N idle cores are needed. hashes: what both give
in this process and by 1, 2 and 4 workers. kills: the sweep by two workers of which one is killed every 20 s.
resume: the client is killed half way, and the share of the work that is done twice is told. Without a word,
all.

Each command has a cache of its own, empty at first. What a run was, and each row, is in the file of --results
as soon as it is known; runs that are there, of the same code, are not made again, so parts can be asked for
one by one.

Beside each time are processor seconds, of client and workers, and `bound` is the ratio that they allow,
(client + workers) / (client + workers / N), also where other programs share the cores.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

from common import CASES, line, parser, paths
from process_tree import Command, Spent

from hwptq.cache.digest import digest
from hwptq.cache.versions import versions

MODELS = ("resnet8", "tiny-kws", "tiny-ad")
TARGETS = ("x86-64-vnni", "x86-64-avx2", "arm-cortex-a", "wasm32-simd")
#: What a report tells of the day, and not of the model.
TIMES = ("seconds", "date")
#: What, its figure, and whether that is good.
Row = tuple[str, str, bool]
BOUND, REPEATED = 1.7, 10.0  # times, percent
HERE = "this process"


@dataclass(frozen=True)
class Run:
    """A command that has ended: by whom, what it took, and a hash of each file that it gave."""

    case: str
    place: str
    spent: Spent
    content: Mapping[str, str]


@dataclass
class Results:
    """Runs and rows as a file that is written anew with each of them; nothing but memory without one."""

    file: Path | None
    runs: list[Run] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    code: str = field(default_factory=lambda: digest(versions()))

    @classmethod
    def read(cls, file: Path | None) -> Results:
        """What a file holds, if it is of this code."""
        found = cls(file)
        if file is not None and file.is_file():
            held = json.loads(file.read_text(encoding="utf-8"))
            if held["code"] == found.code:
                found.runs = [Run(**{**run, "spent": Spent(**run["spent"])}) for run in held["runs"]]
                found.rows = [(name, figure, good) for name, figure, good in held["rows"]]
        return found

    def of(self, case: str, place: str) -> list[Run]:
        """The runs of a case by those workers."""
        return [run for run in self.runs if (run.case, run.place) == (case, place)]

    def add(self, new: Run | Row) -> None:
        """Keep it; a row stands for an older one of its name."""
        if isinstance(new, Run):
            self.runs.append(new)
        else:
            self.rows = [*(row for row in self.rows if row[0] != new[0]), new]
        if self.file is not None:
            held = {"code": self.code, "runs": [asdict(run) for run in self.runs], "rows": self.rows}
            self.file.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Case:
    """A command that is measured. stage: the one that counts; the whole command if none. It has an output
    folder, or prints what it finds."""

    name: str
    words: tuple[Any, ...]
    stage: str | None = None
    output: bool = True

    def start(self, place: str, folder: Path) -> Command:
        """By so many workers; all files in `folder`."""
        words = [*self.words, *(["--cluster", place] if place != HERE else [])]
        words += ["--output", folder / "out", "--quiet"] if self.output else ["--json"]
        return Command(words, folder / "cache", folder / "said.json")

    def content(self, folder: Path) -> dict[str, str]:
        """What it gave."""
        return _content(folder / "out") if self.output else {"said": _hash(folder / "said.json")}

    def seconds(self, spent: Spent) -> float:
        """Of what counts. Exits where a stage was too short to be told of."""
        if self.stage and self.stage not in spent.stages:
            sys.exit(f"{self.name}: its stage took less than a second")
        return spent.stages[self.stage] if self.stage else spent.wall

    def run(self, place: str, results: Results, number: int = 0) -> Run:
        """The run of that number by those workers: one that is there, or a new one."""
        while len(results.of(self.name, place)) <= number:
            with _folder() as folder:
                spent = self.start(place, folder).wait()
                results.add(Run(self.name, place, spent, self.content(folder)))
        return results.of(self.name, place)[number]


def sensitivity(model: str, data: Path) -> Case:
    """The choice of dtypes of a model within a budget: its ranges, roundings and sensitivities."""
    given = paths(model, data)
    words = ("compile", given["model"], "--target", "x86-64-vnni", "--budget", "weights=0.9x",
             "--dry-run", "--preprocess", given["preprocess"],
             "--calibration-data", given["calibration_data"])  # fmt: skip
    return Case(f"sensitivity of {model}", words, "sensitivity", output=False)


def sweep(models: Iterable[str], targets: Iterable[str], data: Path, folder: Path, samples: int) -> Case:
    """A sweep of models by targets by the default recipe."""
    lines = [f"targets = {json.dumps(list(targets))}", "[options]", f"samples = {samples}"]
    for model in models:
        given = {k.replace("_", "-"): str(v) for k, v in paths(model, data).items() if v is not None}
        lines += ["[[model]]", f'name = "{model}"', *(f"{k} = {json.dumps(v)}" for k, v in given.items())]
    lines += ["[[recipe]]", 'name = "default"']
    file = folder / "matrix.toml"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    what = f"sweep of {', '.join(models)} for {', '.join(targets)}, {samples} samples"
    return Case(what, ("sweep", file))


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cluster-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def speed(case: Case, count: int, rounds: int, results: Results) -> Iterator[Row]:
    """Medians of alternated runs, their ratio, and what processor seconds allow."""
    found: dict[int, list[Spent]] = {1: [], count: []}
    for turn in range(rounds):
        for workers in (1, count) if turn % 2 == 0 else (count, 1):
            found[workers].append(case.run(f"local:{workers}", results, turn).spent)
    alone = min(found[1], key=lambda s: s.processor)
    one, many = (median(map(case.seconds, found[n])) for n in (1, count))
    figure = f"{one:.1f} s by one, {many:.1f} s by {count}: {one / many:.2f} x"
    if case.stage:
        whole = [median(s.wall for s in found[n]) for n in (1, count)]
        figure += f" (the whole command {whole[0]:.1f}, {whole[1]:.1f} s: {whole[0] / whole[1]:.2f} x)"
    bound = (
        f"; processor seconds of the command by one: client {alone.client:.1f}, worker {alone.workers:.1f}: "
        f"bound {alone.bound(count):.2f} x"
    )
    yield f"{case.name}, local:{count} against local:1", figure + bound, one / many >= BOUND


def hashes(cases: Iterable[Case], results: Results) -> Iterator[Row]:
    """Whether files and reports are the same in this process and by 1, 2 and 4 workers."""
    for case in cases:
        found = {place: case.run(place, results).content for place in ("local:1", "local:2", HERE, "local:4")}
        yield _compared(f"{case.name}: the same by 1, 2, 4 workers", found)


def kills(case: Case, every: float, results: Results) -> Iterator[Row]:
    """The same where one of two workers is killed every so many seconds."""
    wanted = case.run("local:2", results).content
    with _folder() as folder:
        running, chance, count = case.start("local:2", folder), random.Random(1), 0
        while True:
            try:
                running.process.wait(every)
                break
            except subprocess.TimeoutExpired:
                if workers := running.workers():
                    os.kill(chance.choice(workers), signal.SIGKILL)
                    count += 1
        running.wait()
        found = {"undisturbed": wanted, "with kills": case.content(folder)}
    name, figure, good = _compared(f"{case.name}: a worker killed every {every:.0f} s", found)
    yield name, f"{count} killed; {figure}", good and count > 0


def resume(case: Case, results: Results) -> Iterator[Row]:
    """The share of the work that a client which was killed half way, and everything with it, does again.

    Processor seconds of both commands, less those of an undisturbed one. What a command takes that finds all
    done is no work, as each of them takes it.
    """
    whole = case.run("local:2", results)
    with _folder() as folder:
        running = case.start("local:2", folder)
        while running.process.poll() is None and running.spent() < whole.spent.processor / 2:
            with suppress(subprocess.TimeoutExpired):
                running.process.wait(0.2)
        first = running.spent()
        running.kill()
        second = case.start("local:2", folder).wait().processor
        found = {"undisturbed": whole.content, "resumed": case.content(folder)}
        start = case.start("local:2", folder).wait().processor
    work = whole.spent.processor - start
    again = 100 * (first + second - start - whole.spent.processor) / work  # below 0 by what is measured twice
    yield _compared(f"{case.name}: client killed, resumed", found)
    figure = (
        f"{again:.1f} % of {work:.1f} processor seconds: {first:.1f} until it was killed, {second:.1f} "
        f"afterwards, {whole.spent.processor:.1f} undisturbed, {start:.1f} to find all done"
    )
    yield f"{case.name}: work done twice", figure, again <= REPEATED


def _compared(name: str, found: Mapping[str, Mapping[str, str]]) -> Row:
    first = next(iter(found.values()))
    differ = {p for other in found.values() for p in {*first, *other} if first.get(p) != other.get(p)}
    count = f"{len(first)} files" if len(first) > 1 else "what it prints"
    return (
        name,
        f"{sorted(differ)} differ" if differ else f"{count}, the same by {', '.join(found)}",
        not differ,
    )


def _content(folder: Path) -> dict[str, str]:
    """A hash of each file of an output, but for pages, which show times."""
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {name: _hash(p) for name, p in sorted(files.items()) if p.suffix != ".html"}


def _hash(file: Path) -> str:
    """Of a file; of JSON without times."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without(v) for k, v in value.items() if k not in TIMES}
        return [without(v) for v in value] if isinstance(value, list) else value

    data = file.read_bytes()
    if file.suffix == ".json":
        data = json.dumps(without(json.loads(data))).encode()
    return sha256(data).hexdigest()


def main() -> None:
    """The rows that were asked for."""
    command = parser(__doc__)
    command.add_argument("parts", nargs="*", metavar="PART", help="as above; all if none")
    command.add_argument("--results", type=Path, help="a JSON file of runs and rows")
    command.add_argument("--workers", type=int, default=2)
    command.add_argument("--rounds", type=int, default=1)
    command.add_argument("--samples", type=int, default=100, help="of evaluation, for each compilation")
    command.add_argument("--kill-every", type=float, default=20, help="seconds; more where others are busy")
    command.add_argument("--models", nargs="+", default=MODELS, choices=list(CASES), help="of the sweep")
    command.add_argument("--targets", nargs="+", default=TARGETS, help="of the sweep")
    command.add_argument("--alone", default="imagenet-mobilenetv1-075", choices=list(CASES),
                         help="the model of the sensitivity")  # fmt: skip
    args = command.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    results, missed = Results.read(args.results), 0
    with _folder() as folder:
        matrix = sweep(args.models, args.targets, args.data, folder, args.samples)
        alone = sensitivity(args.alone, args.data)
        rows: dict[str, Callable[[], Iterator[Row]]] = {
            "sensitivity": lambda: speed(alone, args.workers, args.rounds, results),
            "sweep": lambda: speed(matrix, args.workers, args.rounds, results),
            "hashes": lambda: hashes([alone, matrix], results),
            "kills": lambda: kills(matrix, args.kill_every, results),
            "resume": lambda: resume(matrix, results),
        }
        for part in args.parts or rows:
            for found in rows[part]():
                results.add(found)
                print(line(*found), flush=True)
                missed += not found[2]
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
