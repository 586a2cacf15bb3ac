"""Compares and times the programs of benchmarks/carry_build.py, on the machine that they were carried to.

    python benchmarks/carry_run.py FOLDER [--models resnet20,kws] [--rounds 11]

Outputs must equal those of the reference to the byte. Programs of a model are timed in turn, one thread, in
processor time; a line gives the median with the least and the most, and the median of the ratios within a
round to the first target in the order of the alphabet. It needs numpy and nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
from pathlib import Path

import numpy as np

_NANOSECONDS_PER_ROUND = 6e7


def run(program: Path, data: np.ndarray, repeat: int = 0) -> tuple[bytes, int]:
    """Output, and nanoseconds of an inference if it is repeated. Raises RuntimeError where it fails."""
    command = [str(program.resolve()), *(["--repeat", str(repeat)] if repeat else [])]
    done = subprocess.run(command, input=data.tobytes(), capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{program.name}: status {done.returncode}: {done.stderr[-200:]!r}")
    return done.stdout, int(done.stderr.split()[1]) if repeat else 0


def measure(folder: Path, model: str, rounds: int) -> str:
    """The lines of one model."""
    stored = np.load(folder / f"{model}.npz")
    programs = sorted(p for p in folder.glob(f"{model}.*") if p.suffix != ".npz")
    lines = []
    for program in programs:
        program.chmod(0o755)
        found = np.frombuffer(run(program, stored["inputs"])[0], np.uint8)
        differing = int((found != stored["outputs"].reshape(-1)).sum())
        lines.append(f"{program.name}: {differing} of {found.size} bytes differ")
    one = stored["inputs"][:1]
    repeats = {p: max(1, int(_NANOSECONDS_PER_ROUND / max(run(p, one, 3)[1], 1))) for p in programs}
    times: dict[Path, list[int]] = {p: [] for p in programs}
    for _ in range(rounds):
        for program in programs:
            times[program].append(run(program, one, repeats[program])[1])
    first = times[programs[0]]
    for program, taken in times.items():
        ratio = statistics.median(a / b for a, b in zip(first, taken, strict=True))
        milliseconds = [t * 1e-6 for t in (statistics.median(taken), min(taken), max(taken))]
        spread = "{:.3f} ms ({:.3f} … {:.3f})".format(*milliseconds)
        lines.append(f"{program.name}: {spread}, {ratio:.2f} x as fast as {programs[0].name}")
    return "\n".join(lines)


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    command.add_argument("folder", type=Path)
    command.add_argument("--models", default="")
    command.add_argument("--rounds", type=int, default=11)
    arguments = command.parse_args()
    names = arguments.models.split(",") if arguments.models else []
    for model in names or sorted(p.stem for p in arguments.folder.glob("*.npz")):
        print(measure(arguments.folder, model, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
