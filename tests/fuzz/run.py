"""Runs hwptq on inputs that follow from seeds, and lists those that it didn't take or refuse as it should.

python tests/fuzz/run.py [--kind NAME …] [--count 1000] [--seed 1] [--log FILE.jsonl]

Case i of a kind has the seed SEED * 1,000,000 + i. Cases that the log holds are not run again; two such
processes fit a machine of two cores. `--case NAME:SEED` runs one case and leaves its files in --folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]

from case import Kind, kinds  # noqa: E402
from worker import Done, run_case, run_cases  # noqa: E402

_PART = 100  # cases of a kind before the next kind's turn


def main() -> None:
    """Run the cases; exit code 1 where one is a finding."""
    args = _arguments()
    every = kinds()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if args.case:
            name, seed = args.case.split(":")
            done = run_case(every[name], int(seed), folder / "fuzz")
            sys.exit(f"{done.problem or 'well'} (exit code {done.code}): {done.said}")
        chosen = [every[name] for name in args.kind or every]
        seeds = range(args.seed * 10**6, args.seed * 10**6 + args.count)
        with args.log.open("a+") as log:
            found = Counter(_run_all(chosen, seeds, folder / "fuzz", log))
    for (kind, what), number in sorted(found.items()):
        print(f"{kind:12} {what:9} {number}")
    sys.exit(any(what == "wrong" for _, what in found))


def _run_all(chosen: list[Kind], seeds: range, folder: Path, log: TextIO) -> Iterator[tuple[str, str]]:
    """The kind and the verdict of each case; those of the log come first."""
    log.seek(0)
    logged = [Done(**json.loads(line)) for line in log]
    before = {(done.kind, done.seed) for done in logged}
    yield from (_verdict(done) for done in logged)
    for part, kind in itertools.product(range(seeds.start, seeds.stop, _PART), chosen):
        ours = range(part, min(part + _PART, seeds.stop))
        for done in run_cases(kind, [seed for seed in ours if (kind.name, seed) not in before], folder):
            print(done.line, file=log, flush=True)
            if done.problem:
                print(f"{done.kind}:{done.seed}: {done.problem}", file=sys.stderr)
            yield _verdict(done)


def _verdict(done: Done) -> tuple[str, str]:
    return done.kind, "wrong" if done.problem else "refused" if done.code else "done"


def _arguments() -> argparse.Namespace:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    command.add_argument("--kind", action="append")
    command.add_argument("--count", type=int, default=1000)
    command.add_argument("--seed", type=int, default=1)
    command.add_argument("--log", type=Path, default=Path("fuzz.jsonl"))
    command.add_argument("--case", metavar="NAME:SEED")
    command.add_argument("--folder", type=Path)
    return command.parse_args()


if __name__ == "__main__":
    main()
