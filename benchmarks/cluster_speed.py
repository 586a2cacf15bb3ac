"""Two workers against one, and the same bits whoever computes, however many are killed.

python benchmarks/cluster_speed.py [sensitivity] [sweep] [hashes] [kills] [resume]
    [--workers 2] [--rounds 3] [--small]

sensitivity, sweep: --cluster local:N against local:1, alternated, for the sensitivity of MobileNetV1, and for
3 models by 4 targets; N idle cores are needed. hashes: reports and files by 1, 2 and 4 workers, and in this
process. kills: the sweep by two workers of which one is killed every 20 s. resume: the client is killed half
way, and the share of the work that is done twice is told. Without a word, all. --small: the demo alone.

Beside each time are processor seconds, of client and workers, and `bound` is the ratio that they allow,
(client + workers) / (client + workers / N), also where other programs share the cores.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

from common import line, parser, paths

MODELS = ("cifar10-resnet20", "imagenet-mobilenetv1-075", "tiny-kws")
TARGETS = ("x86-64-vnni", "x86-64-avx2", "arm-cortex-a", "wasm32-simd")
#: What a report tells of the day, and not of the model.
TIMES = ("seconds", "date")
#: What, its figure, and whether that is good.
Row = tuple[str, str, bool]
BOUND, KILL_EVERY, REPEATED = 1.7, 20.0, 10.0  # times, seconds, percent


@dataclass(frozen=True)
class Spent:
    """Of one command: seconds by the clock, processor seconds of its client and of its workers."""

    wall: float
    client: float
    workers: float

    def bound(self, count: int) -> float:
        """How many times sooner `count` workers can end, if nothing but the client holds them up."""
        whole = self.client + self.workers
        return whole / (self.client + self.workers / count)


class Command:
    """A hwptq command with a cache of its own, and its process tree."""

    def __init__(self, words: Iterable[Any], cache: Path):
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"}
        self._before, self._spent_before = time.monotonic(), _children()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hwptq", *map(str, words)], env=environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self._seen: dict[int, float] = {}  # processor seconds of workers
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._sample, daemon=True)
        self._watch.start()

    def wait(self) -> Spent:
        """Until it ends. Exits where it failed."""
        _, said = self.process.communicate()
        wall = time.monotonic() - self._before
        self._done.set()
        self._watch.join()
        if self.process.returncode:
            sys.exit(f"{self.process.args}: exit code {self.process.returncode}: {said[-500:]}")
        workers = sum(self._seen.values())
        return Spent(wall, _children() - self._spent_before - workers, workers)

    def workers(self) -> list[int]:
        """Processes of its cluster that compute."""
        return [pid for pid in _group(self.process.pid) if _is_worker(pid)]

    def kill(self) -> None:
        """End it and all that it started, at once."""
        for pid in _group(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._done.set()
        self._watch.join()
        self.process.communicate()

    def spent(self) -> float:
        """Processor seconds of all its living processes, and of those that they have waited for."""
        found = 0.0
        for pid in _group(self.process.pid):
            with suppress(OSError, IndexError, ValueError):
                found += _seconds(pid)
        return found

    def _sample(self) -> None:
        """Look at the workers until they end: what they have used is known only while they live."""
        while not self._done.wait(0.2):
            for pid in self.workers():
                with suppress(OSError, IndexError, ValueError):
                    self._seen[pid] = _seconds(pid)


def _group(session: int) -> list[int]:
    """The processes of a session, whatever group they are in."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):
            fields = (entry / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
            if int(fields[3]) == session:
                found.append(int(entry.name))
    return found


def _children() -> float:
    """Processor seconds of all that this process has started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _is_worker(pid: int) -> bool:
    """Whether it is a process of multiprocessing's, as Dask's workers are, or was started by one."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        return b"multiprocessing" in words and b"spawn_main" in words
    return False


def _seconds(pid: int) -> float:
    """Processor seconds of a process and of those that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Case:
    """A command that is measured."""

    name: str
    words: tuple[Any, ...]
    output: bool = True

    def start(self, cluster: str | None, folder: Path, cached: bool = False) -> Command:
        """By so many workers; all files in `folder`."""
        words = [*self.words, *(["--cluster", cluster] if cluster else []), "--quiet"]
        words += [] if cached else ["--no-cache"]
        words += ["--output", folder / "out"] if self.output else []
        return Command(words, folder / "cache")


def sensitivity(model: str, data: Path) -> Case:
    """The choice of dtypes of a model within a budget: its ranges, roundings and sensitivities."""
    given = paths(model, data)
    words = ("compile", given["model"], "--target", "x86-64-vnni", "--budget", "weights=0.9x",
             "--dry-run", "--preprocess", given["preprocess"],
             "--calibration-data", given["calibration_data"])  # fmt: skip
    return Case(f"sensitivity of {model}", words, output=False)


def sweep(models: Iterable[str], targets: Iterable[str], data: Path, folder: Path, samples: int) -> Case:
    """A sweep of models by targets by the default recipe."""
    lines = [f"targets = {json.dumps(list(targets))}", "[options]", f"samples = {samples}"]
    for model in models:
        given = {k.replace("_", "-"): str(v) for k, v in paths(model, data).items() if v is not None}
        lines += ["[[model]]", f'name = "{model}"', *(f"{k} = {json.dumps(v)}" for k, v in given.items())]
    lines += ["[[recipe]]", 'name = "default"']
    file = folder / "matrix.toml"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Case(f"sweep of {len(list(models))} models by {len(list(targets))} targets", ("sweep", file))


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
        yield Path(folder)


def speed(cases: Iterable[Case], count: int, rounds: int) -> Iterator[Row]:
    """A row for each case: medians of alternated runs, their ratio, and what processor seconds allow."""
    for case in cases:
        found: dict[int, list[Spent]] = {1: [], count: []}
        for turn in range(rounds):
            for workers in (1, count) if turn % 2 == 0 else (count, 1):
                with _folder() as folder:
                    found[workers].append(case.start(f"local:{workers}", folder).wait())
        one, many = (median(s.wall for s in found[n]) for n in (1, count))
        alone = min(found[1], key=lambda s: s.client + s.workers)
        figure = (
            f"{one:.1f} s by one, {many:.1f} s by {count}: {one / many:.2f} x; processor seconds of one: "
            f"client {alone.client:.1f}, worker {alone.workers:.1f}: bound {alone.bound(count):.2f} x"
        )
        yield f"{case.name}, local:{count} against local:1", figure, one / many >= BOUND


def hashes(cases: Iterable[Case]) -> Iterator[Row]:
    """Whether files and reports are the same in this process and by 1, 2 and 4 workers."""
    for case in cases:
        found = {}
        for place in (None, "local:1", "local:2", "local:4"):
            with _folder() as folder:
                case.start(place, folder).wait()
                found[place or "this process"] = _content(folder / "out")
        yield _compared(f"{case.name}: files and reports by 1, 2, 4 workers", found)


def kills(case: Case) -> Iterator[Row]:
    """The same where one of two workers is killed every 20 s."""
    with _folder() as folder:
        case.start(None, folder).wait()
        wanted = _content(folder / "out")
    with _folder() as folder:
        running, chance, count = case.start("local:2", folder), random.Random(1), 0
        while True:
            try:
                running.process.wait(KILL_EVERY)
                break
            except subprocess.TimeoutExpired:
                if workers := running.workers():
                    os.kill(chance.choice(workers), signal.SIGKILL)
                    count += 1
        running.wait()
        found = {"undisturbed": wanted, "with kills": _content(folder / "out")}
    yield _compared(f"{case.name}: {count} workers killed", found)


def resume(case: Case) -> Iterator[Row]:
    """The share of the work that a client which was killed half way, and everything with it, does again."""
    with _folder() as folder:
        whole = case.start("local:2", folder, cached=True).wait()
        wanted = _content(folder / "out")
    with _folder() as folder:
        running = case.start("local:2", folder, cached=True)
        with suppress(subprocess.TimeoutExpired):
            running.process.wait(whole.wall / 2)
        first = running.spent()
        running.kill()
        second = case.start("local:2", folder, cached=True).wait()
        found = {"undisturbed": wanted, "resumed": _content(folder / "out")}
    total = whole.client + whole.workers
    again = 100 * max(0.0, first + second.client + second.workers - total) / total
    yield _compared(f"{case.name}: client killed, resumed", found)
    figure = f"{again:.1f} % of {total:.1f} processor seconds"
    yield f"{case.name}: work done twice", figure, again <= REPEATED


def _compared(name: str, found: Mapping[str, Mapping[str, str]]) -> Row:
    first = next(iter(found.values()))
    differ = {p for other in found.values() for p in {*first, *other} if first.get(p) != other.get(p)}
    same = f"{len(first)} files, the same by {', '.join(found)}"
    return name, f"{sorted(differ)} differ" if differ else same, not differ


def _content(folder: Path) -> dict[str, str]:
    """A hash of each file of an output; of reports without times, and not of pages, which show them."""
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {
        name: sha256(_untimed(p) if p.suffix == ".json" else p.read_bytes()).hexdigest()
        for name, p in sorted(files.items())
        if p.suffix != ".html"
    }


def _untimed(file: Path) -> bytes:
    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without(v) for k, v in value.items() if k not in TIMES}
        return [without(v) for v in value] if isinstance(value, list) else value

    return json.dumps(without(json.loads(file.read_text(encoding="utf-8")))).encode()


def main() -> None:
    """The rows that were asked for."""
    command = parser(__doc__)
    command.add_argument("parts", nargs="*", metavar="PART", help="as above; all if none")
    command.add_argument("--workers", type=int, default=2)
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--samples", type=int, default=200, help="of evaluation, for each compilation")
    command.add_argument("--small", action="store_true", help="the demo for two targets alone")
    args = command.parse_args()
    models = ("demo",) if args.small else MODELS
    targets = TARGETS[:2] if args.small else TARGETS
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    missed = 0
    with _folder() as folder:
        matrix = sweep(models, targets, args.data, folder, args.samples)
        alone = sensitivity("demo" if args.small else "imagenet-mobilenetv1-075", args.data)
        rows: dict[str, Callable[[], Iterator[Row]]] = {
            "sensitivity": lambda: speed([alone], args.workers, args.rounds),
            "sweep": lambda: speed([matrix], args.workers, args.rounds),
            "hashes": lambda: hashes([matrix]),
            "kills": lambda: kills(matrix),
            "resume": lambda: resume(matrix),
        }
        for part in args.parts or rows:
            for found in rows[part]():
                print(line(*found), flush=True)
                missed += not found[2]
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
