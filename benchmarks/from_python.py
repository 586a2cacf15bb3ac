"""What a call from Python costs beside the program's own time, and whether threads disturb each other.

    python benchmarks/from_python.py --data DATA [--models tiny-kws,demo] [--rounds 15] [--calls 10000]

Rounds alternate between the program (the mean of its --repeat) and calls of load(DIR).run, in time of the
processor; the medians of both and of their difference are shown. Then every two of the models run on a thread
each, and each output is compared with the first one of its input.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from itertools import pairwise
from pathlib import Path
from time import process_time

import numpy as np
from common import CASES, Case, parser
from programs import TimedProgram

import hwptq
from hwptq.artifact import CompiledModel

_CALLS = 2000  # of a round


def compiled(case: Case, data: Path, target: str, folder: Path) -> CompiledModel:
    """A model of the data folder."""
    where = data / case.folder
    preprocess = where / case.preprocess if case.preprocess else None
    return hwptq.compile(
        where / case.model, target, where / case.calibration, where / case.evaluation, preprocess, folder,
        hwptq.Options(samples=32),
    )  # fmt: skip


def samples(model: CompiledModel) -> list[dict[str, np.ndarray]]:
    """The golden inputs."""
    golden = np.load(model.folder / "golden.npz")
    count = len(golden[model.inputs[0].name])
    return [{t.name: golden[t.name][i : i + 1] for t in model.inputs} for i in range(count)]


def seconds_of_calls(model: CompiledModel, inputs: dict[str, np.ndarray]) -> float:
    """The mean time of a call from Python."""
    start = process_time()
    for _ in range(_CALLS):
        model.run(inputs)
    return (process_time() - start) / _CALLS


def wrong_beside(models: list[CompiledModel], calls: int) -> list[int]:
    """How many of `calls` outputs of each model differ from its first ones, all models side by side."""
    wrong = [0] * len(models)

    def work(number: int) -> None:
        model, inputs = models[number], samples(models[number])
        first = [model.run(x) for x in inputs]
        for call in range(calls):
            at = call % len(inputs)
            found = model.run(inputs[at])
            wrong[number] += any(not np.array_equal(found[k], first[at][k]) for k in found)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def measure(name: str, model: CompiledModel, rounds: int) -> None:
    """Print the times of one model."""
    inputs = samples(model)[0]
    program = TimedProgram(model.program, _CALLS)
    pairs = [(program.seconds(inputs), seconds_of_calls(model, inputs)) for _ in range(rounds)]
    program.close()
    own, called = np.array(pairs).T * 1e6
    more = np.percentile(called - own, (10, 50, 90))
    print(
        f"{name:26} program {np.median(own):8.1f} us, from Python {np.median(called):8.1f} us, "
        f"more by {more[1]:5.1f} ({more[0]:.1f} … {more[2]:.1f}) us",
        flush=True,
    )


def main() -> None:
    command = parser(__doc__)
    command.formatter_class = argparse.RawTextHelpFormatter
    command.add_argument("--models", default="tiny-kws,resnet8")
    command.add_argument("--target", default="x86-64-vnni")
    command.add_argument("--rounds", type=int, default=15)
    command.add_argument("--calls", type=int, default=10_000)
    options = command.parse_args()
    with tempfile.TemporaryDirectory(prefix="hwptq-") as folder:
        models = {}
        for name in options.models.split(","):
            models[name] = compiled(CASES[name], options.data, options.target, Path(folder) / name)
            measure(name, models[name], options.rounds)
        for pair in pairwise([*models, next(iter(models))]):
            wrong = wrong_beside([models[name] for name in pair], options.calls)
            print(
                f"{' and '.join(pair)} on two threads, {options.calls} calls each: {wrong} wrong", flush=True
            )


if __name__ == "__main__":
    main()
