"""Compilations killed at random moments, over an old output: old or new must be whole, and nothing else left.

python benchmarks/kills.py [--count 200] [--seed 1]

The signals are SIGINT, SIGTERM and SIGKILL, to the command alone or to it and all that it started. What a
SIGKILL leaves, the next compilation removes.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from common import ROOT, row

DIGITS = ROOT / "examples" / "digits"
TIMED = ("report.json", "report.html")  # hold seconds
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}


class Place:
    """A folder for outputs and one for temporary files, both empty but for what is expected."""

    def __init__(self, folder: Path):
        self.output, self.temporary = folder / "outputs" / "out", folder / "temporary"
        self.temporary.mkdir()
        self.output.parent.mkdir()

    def start(self, samples: int) -> subprocess.Popen[str]:
        """A compilation of the demo; outputs differ by the number of samples."""
        files = {"calibration-data": "calibration.npz", "preprocess": "preprocess.toml"}
        options = [part for key, name in files.items() for part in (f"--{key}", str(DIGITS / name))]
        options += ["--target", "x86-64-avx2", "--recipe", "fast", "--quiet", "--samples", str(samples)]
        options += ["--output", str(self.output)]
        return subprocess.Popen(
            [sys.executable, "-m", "hwptq", "compile", DIGITS / "digits.onnx", *options],
            env={**os.environ, "TMPDIR": str(self.temporary)}, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def compiled(self, samples: int) -> dict[str, str]:
        """The output of an undisturbed compilation."""
        process = self.start(samples)
        _, said = process.communicate()
        if process.returncode:
            sys.exit(f"the compilation itself fails: {said}")
        return self.content()

    def content(self) -> dict[str, str]:
        """A hash of each file of the output; of those that hold times, that they are there."""
        return {
            p.name: "" if p.name in TIMED else sha256(p.read_bytes()).hexdigest()
            for p in self.output.iterdir()
        }

    def left(self) -> list[str]:
        """What lies beside the output, and all temporary files."""
        beside = [p.name for p in self.output.parent.iterdir() if p != self.output]
        return beside + [p.name for p in self.temporary.iterdir()]


def kill(place: Place, samples: int, number: signal.Signals, group: bool, moment: float) -> str:
    """Start a compilation and send it a signal; what is wrong afterwards, or ""."""
    process = place.start(samples)
    _await_handlers(process.pid)
    time.sleep(moment)
    with suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(process.pid, number)
    _, said = process.communicate()
    if process.returncode not in (0, CODES[number]):
        return f"exit code {process.returncode}: {said[-200:]}"
    if len(said.splitlines()) != (process.returncode > 0):
        return f"says {said!r}"
    if number == signal.SIGKILL:
        _await_end(place)
    elif left := place.left():
        return f"leaves {left}"
    return ""


def _await_handlers(process: int) -> None:
    """Wait until Python itself has started, and hwptq catches signals."""
    mask = 1 << (signal.SIGTERM - 1)
    while True:
        text = Path(f"/proc/{process}/status").read_text(encoding="ascii")
        if int(text.split("SigCgt:")[1].split()[0], 16) & mask:
            return
        time.sleep(0.001)


def _await_end(place: Place) -> None:
    """Wait until the processes that a killed one started are gone, as they are a moment later."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        names = [_environment(p) for p in Path("/proc").glob("[0-9]*")]
        if not any(str(place.temporary).encode() in text for text in names):
            return
        time.sleep(0.01)


def _environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


@contextmanager
def _place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as folder:
        yield Place(Path(folder))


def main() -> None:
    """One row: how many compilations were killed, and what was wrong."""
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("--count", type=int, default=200)
    command.add_argument("--seed", type=int, default=1)
    args = command.parse_args()
    chance, wrong, ends = random.Random(args.seed), [], Counter[str]()
    with _place() as place:
        outputs = [place.compiled(2)]
        shutil.rmtree(place.output)
        start = time.monotonic()
        outputs.append(place.compiled(3))
        duration = time.monotonic() - start
        for number in range(args.count):
            sent, group = chance.choice([*CODES]), chance.random() < 0.5
            moment = chance.uniform(0, duration)
            before = place.content()
            samples = 2 + (before == outputs[0])
            problem = kill(place, samples, sent, group, moment)
            after = place.content() if place.output.is_dir() else {}
            ends["old" if after == before else "new"] += 1
            if after not in outputs:
                problem = f"the output is neither the old one nor the new one: {sorted(after)}"
            if problem:
                wrong.append(f"{number}: {sent.name} after {moment:.2f} s: {problem}")
                print(wrong[-1], file=sys.stderr)
        place.compiled(2)
        if left := place.left():
            wrong.append(f"the next compilation leaves {left}")
            print(wrong[-1], file=sys.stderr)
    figure = f"{args.count} killed, {ends['old']} outputs old, {ends['new']} new, {len(wrong)} wrong"
    row(f"kills, seed {args.seed}", figure, not wrong)


if __name__ == "__main__":
    main()
