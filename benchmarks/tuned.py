"""What --tune gains on whole models: time where the code runs here, else instructions under the emulator.

    python benchmarks/tuned.py --data DATA [--target x86-64-vnni] [--models resnet20,kws] [--rounds 15]
        [--realtime]

The programs with and without tuning are timed in turn, one thread; a line gives the medians of the rounds,
the median of the ratios within a round, and how long tuning took. Nothing comes from a cache.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import tvm
from emulated import per_inference
from models import NAMES, Case, load_case
from programs import TimedProgram, quantized
from scheduling import realtime

from hwptq.backends.program import Program
from hwptq.backends.static_c.instruction_counter import InstructionCounter
from hwptq.backends.static_c.static_program import build_program
from hwptq.passes import SelectKernels
from hwptq.progress import Progress
from hwptq.targets import Descriptor, load_target
from hwptq.tuning.tile_cache import TileCache
from hwptq.tuning.tune import Tuning, tune

_SECONDS_PER_ROUND = 0.05


def programs(case: Case, target: Descriptor, folder: Path) -> tuple[list[Program], Tuning, float]:
    """The program without tuning and the one with it, the choice, and the seconds it took."""
    graphs, outputs = quantized(case, target)
    start = time.perf_counter()
    tuning = tune(graphs.integer, target, TileCache(folder / "tiles"), Progress())
    seconds = time.perf_counter() - start
    select = tvm.ir.transform.Sequential([SelectKernels(target, tile_of=tuning.tile_of)])
    tuned = replace(graphs, kernels=select(graphs.integer))
    found = []
    for name, kernels in (("usual", graphs.kernels), ("tuned", tuned.kernels)):
        (folder / name).mkdir()
        found.append(build_program(kernels, outputs, case.name, target, folder / name))
    return found, tuning, seconds


def times(case: Case, pair: list[Program], rounds: int) -> np.ndarray:
    """Seconds [rounds, 2]."""
    sample = case.samples[0]
    repeat = max(1, round(_SECONDS_PER_ROUND / TimedProgram.once(pair[0], sample)))
    timed = [TimedProgram(program, repeat) for program in pair]
    found = np.array([[t.seconds(sample) for t in timed] for _ in range(rounds)])
    for t in timed:
        t.close()
    return found


def instructions(case: Case, pair: list[Program], target: Descriptor, folder: Path) -> list[int]:
    """Of an inference of each program."""
    counter = InstructionCounter(target.toolchain.run, folder)
    sample = case.samples[0]
    data = b"".join(np.ascontiguousarray(sample[t.name], t.dtype).tobytes() for t in pair[0].inputs)
    return [per_inference(counter, program.program.resolve(), data).total() for program in pair]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the models and their data")
    parser.add_argument("--target", default="x86-64-vnni")
    parser.add_argument("--models", default=",".join(NAMES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--realtime", action="store_true", help="ahead of other processes; needs root")
    options = parser.parse_args()
    target = load_target(options.target)
    for name in options.models.split(","):
        with tempfile.TemporaryDirectory(prefix="hwptq-") as scratch:
            folder = Path(scratch)
            case = load_case(name, options.data, folder)
            pair, tuning, seconds = programs(case, target, folder)
            if target.toolchain.run:
                usual, tuned = instructions(case, pair, target, folder)
                costs = f"{usual:12,} {tuned:12,} instructions  {usual / tuned:6.3f} x"
            else:
                with realtime(options.realtime):
                    found = times(case, pair, options.rounds)
                usual, tuned = np.median(found, axis=0) * 1e3
                ratio = np.median(found[:, 0] / found[:, 1])
                costs = f"{usual:9.4f} {tuned:9.4f} ms  {ratio:6.3f} x"
            chosen = f"{tuning.report()['changed']} of {tuning.measured} layer shapes changed"
            print(f"{name:16} {costs}  {chosen}, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
