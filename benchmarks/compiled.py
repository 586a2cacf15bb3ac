"""Time per inference of programs that `hwptq compile` wrote, one thread, on the first sample of a file.

    python benchmarks/compiled.py SAMPLES.npz FOLDER [FOLDER …]   # as many as are to be compared

SAMPLES.npz holds an array [samples, ...] for each input, by its name. The programs are measured in turn, so
that what else the machine does meets them alike; the time is that of the processor. A line gives the median
and the least of the rounds, and the ratio of the first folder's median to this one's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from programs import TimedProgram

from hwptq.artifact import CompiledModel, load

_ROUNDS = 8
_REPEAT = 10  # inferences of a round


def first_sample(model: CompiledModel, samples: Path) -> dict[str, np.ndarray]:
    """The first of the samples of a file, with batch 1."""
    with np.load(samples) as arrays:
        return {t.name: arrays[t.name][:1].reshape(t.shape).astype(t.dtype) for t in model.inputs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("samples", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    options = parser.parse_args()
    models = {folder: load(folder) for folder in options.folders}
    running = {folder: TimedProgram(model.program, _REPEAT) for folder, model in models.items()}
    inputs = {folder: first_sample(model, options.samples) for folder, model in models.items()}
    times = [[running[f].seconds(inputs[f]) for f in running] for _ in range(_ROUNDS)]
    for program in running.values():
        program.close()
    medians, least = np.median(times, axis=0), np.min(times, axis=0)
    for folder, median, shortest in zip(running, medians, least, strict=True):
        print(
            f"{median * 1e3:9.3f} ms, least {shortest * 1e3:9.3f} ms  {medians[0] / median:6.2f} x  {folder}"
        )


if __name__ == "__main__":
    main()
