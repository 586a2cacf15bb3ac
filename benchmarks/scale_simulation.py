"""What clusters of 1 to 1,000 workers make of 10,000 compilations, by the times of stages as measured.

    python benchmarks/scale_simulation.py [--measure]

--measure: by the processor seconds that stages take here and now (some minutes), which are printed.
Discrete events, without a clock: compilations, each a chain of stages, are all there at the beginning; of the
stages some are divided into parts for any worker, others hold one worker. Each part passes the scheduler,
which handles one message at a time, as Dask's does. A sweep is compilations of one part each.
"""

from __future__ import annotations

import heapq
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common import parser, paths

import hwptq
from hwptq.progress import Progress

#: Processor seconds of the stages of one compilation (resnet20 for arm-cortex-a, --budget weights=0.8x, 1,000
#: images by qemu, on two cores that others used too; --measure on 30 November 2026), and into how many parts
#: each is divided; 1 stays with one worker.
STAGES: tuple[tuple[str, float, int], ...] = (
    ("import and check", 1.2, 1),
    ("calibrate", 4.9, 8),
    ("sensitivity", 11.8, 64),
    ("round weights", 9.6, 1),
    ("lower, select, build", 2.7, 1),
    ("verify", 41.9, 16),
    ("report", 1.2, 1),
)
#: What the stages of a flow (hwptq/progress.py) are here; those that are missing take next to nothing.
NAMES = {
    "import": "import and check", "check the import": "import and check", "calibrate": "calibrate",
    "sensitivity": "sensitivity", "round weights": "round weights", "lower": "lower, select, build",
    "select": "lower, select, build", "build": "lower, select, build", "verify": "verify", "report": "report",
}  # fmt: skip
#: Processor seconds of Dask's scheduler and its client for one task, and for a byte, measured with tasks that
#: do nothing.
TASK, BYTE = 2.4e-3, 7.4e-9
#: Bytes that a part brings with it: a sample, or what was found in some.
PART_BYTES = 100_000
WORKERS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class ProcessorTime(Progress):
    """Of each stage, with the compilers and emulators that it waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.used: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        before = _used()
        with super().stage(name):
            yield
        known = NAMES.get(name, name)
        self.used[known] = self.used.get(known, 0.0) + _used() - before


def _used() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def measured(data: Path) -> tuple[tuple[str, float, int], ...]:
    """STAGES, as they are here and now; all on arm-cortex-a, whose code runs under qemu."""
    progress = ProcessorTime()
    options = hwptq.Options(budget="weights=0.8x", samples=1000)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: str(path) for name, path in paths("cifar10-resnet20", data).items()}
        hwptq.compile(**files, target="arm-cortex-a", output=Path(folder, "out"), options=options,
                      progress=progress)  # fmt: skip
    return tuple((name, progress.used.get(name, 0.0), parts) for name, _, parts in STAGES)


@dataclass(frozen=True)
class Outcome:
    """Of a simulation: seconds until all is done, and the share of the workers' time that is work."""

    seconds: float
    efficiency: float
    scheduler: float  # the share of the time that the scheduler is busy


def simulate(
    workers: int, compilations: int, stages: Sequence[tuple[str, float, int]], seed: int = 0
) -> Outcome:
    """`compilations` that are all there at the beginning, by so many workers.

    Each part takes its share of the stage's seconds, 0.8 to 1.2 times; those that wait longest go first.
    """
    rng = random.Random(seed)
    free = [0.0] * workers
    heapq.heapify(free)
    ready = [(0.0, i, 0) for i in range(compilations)]  # when, which compilation, which stage
    heapq.heapify(ready)
    scheduler = busy = end = 0.0
    while ready:
        when, which, stage = heapq.heappop(ready)
        _, seconds, parts = stages[stage]
        done = when
        for _ in range(parts):
            scheduler = max(scheduler, when) + TASK + BYTE * PART_BYTES
            worker = heapq.heappop(free)
            took = seconds / parts * rng.uniform(0.8, 1.2)
            finished = max(worker, scheduler) + took
            heapq.heappush(free, finished)
            busy += took
            done = max(done, finished)
        end = max(end, done)
        if stage + 1 < len(stages):
            heapq.heappush(ready, (done, which, stage + 1))
    told = compilations * sum(parts for *_, parts in stages) * (TASK + BYTE * PART_BYTES)
    return Outcome(end, busy / (workers * end), told / end)


def main() -> None:
    """Print the table of docs/scale.md."""
    command = parser(__doc__)
    command.add_argument("--compilations", type=int, default=10_000)
    command.add_argument("--measure", action="store_true", help="the stages, before")
    args = command.parse_args()
    count, parts = args.compilations, STAGES
    if args.measure:
        parts = measured(args.data)
        print("processor seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds, _ in parts))
    work = sum(seconds for _, seconds, _ in parts)
    print(f"{count} compilations of {work:.1f} processor seconds each")
    print("| | workers | hours | a day | efficiency | scheduler busy |")
    print("|---|---|---|---|---|---|")
    for name, stages in (("each in parts", parts), ("as a sweep", (("compilation", work, 1),))):
        for workers in WORKERS:
            found = simulate(workers, count, stages)
            hours = found.seconds / 3600
            print(
                f"| {name} | {workers:,} | {hours:.2f} | {24 / hours * count:,.0f} "
                f"| {found.efficiency:.2f} | {100 * found.scheduler:.0f} % |"
            )


if __name__ == "__main__":
    main()
