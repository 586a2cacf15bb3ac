"""Time per inference of whole models, batch 1: hwptq beside ONNX Runtime and OpenVINO.

    python benchmarks/speed.py --data DATA [--target x86-64-vnni] [--models resnet20,kws] [--rounds 15]
        [--openvino-python PEER/bin/python] [--threads 2] [--realtime | --busy-core free|pinned]

OpenVINO is installed apart, see openvino_peer.py; without it the comparison is with ONNX Runtime alone.
All contenders of a model are measured in turn, `--rounds` times, so that what else the machine does meets
them alike. The time of one thread is that of the processor, of several threads that of the clock. A line
gives the median of the rounds with the spread from the 10th to the 90th percentile, and the medians of the
ratios within a round: to ONNX Runtime int8, and with several threads to hwptq on one (above 1 = faster).

--realtime puts what is timed ahead of other processes. --busy-core compares hwptq on several threads with
hwptq on one while a process that always runs has a core too.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Protocol

import numpy as np
from models import NAMES, Case, load_case
from onnx_runtime import TimedSession, quantize, quantize_dynamic
from peer_process import TimedPeer
from programs import TimedProgram, build
from scheduling import busy_core, realtime

from hwptq.backends.program import Program
from hwptq.targets import load_target

_SECONDS_PER_ROUND = 0.05
_BASE = "onnxruntime int8"
_OWN = "hwptq, 1 thread"


class Contender(Protocol):
    """What can be timed."""

    def seconds(self, sample: dict[str, np.ndarray]) -> float:
        """Mean time of one inference."""

    def close(self) -> None:
        """Let go of its resources."""


def contenders(
    case: Case, program: Program, folder: Path, threads: int, openvino: Path | None
) -> dict[str, Contender]:
    """Everything that is compared on a case; each round of one takes about _SECONDS_PER_ROUND."""
    int8 = quantize(case, folder)
    once = TimedSession(int8, 5).seconds(case.samples[0])
    repeat = max(1, round(_SECONDS_PER_ROUND / once))
    found: dict[str, Contender] = {
        **own(program, repeat, threads),
        _BASE: TimedSession(int8, repeat, threads),
        "onnxruntime float32": TimedSession(case.model, repeat, threads),
    }
    if case.transformer:
        found["onnxruntime dynamic"] = TimedSession(quantize_dynamic(case, folder), repeat, threads)
    for precision in ("int8", "bf16") if openvino else ():
        assert openvino is not None
        found[f"openvino {precision}"] = TimedPeer(openvino, case, precision, repeat, threads, folder)
    return found


def own(program: Program, repeat: int, threads: int) -> dict[str, Contender]:
    """hwptq on one thread and on several, all timed by the clock, or on one, timed by the processor."""
    if threads == 1:
        return {"hwptq": TimedProgram(program, repeat)}
    clock = {n: TimedProgram(program, repeat, n, by_clock=True) for n in (1, threads)}
    return {_OWN: clock[1], f"hwptq, {threads} threads": clock[threads]}


def measure(case: Case, found: dict[str, Contender], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of each round."""
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, contender in found.items():
            times[name].append(contender.seconds(case.samples[0]))
    return {name: np.array(values) for name, values in times.items()}


def show(case: Case, times: dict[str, np.ndarray]) -> None:
    """One line per contender."""
    bases = {name: times[name] for name in (_BASE, _OWN) if name in times}
    for name, values in times.items():
        low, middle, high = np.percentile(values, (10, 50, 90)) * 1e3
        ratios = "".join(f"  {np.median(base / values):5.2f} x of {b}" for b, base in bases.items())
        print(f"{case.name:16} {name:20} {middle:9.3f} ms  ({low:8.3f} … {high:<8.3f}){ratios}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the models and their data")
    parser.add_argument("--target", default="x86-64-vnni")
    parser.add_argument("--models", default=",".join(NAMES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--openvino-python", type=Path, help="a Python with openvino and nncf")
    parser.add_argument("--realtime", action="store_true", help="ahead of other processes; needs root")
    parser.add_argument("--busy-core", choices=("free", "pinned"), help="beside a process that always runs")
    options = parser.parse_args()
    target, threads = load_target(options.target), options.threads
    for name in options.models.split(","):
        with tempfile.TemporaryDirectory(prefix="hwptq-") as scratch:
            folder = Path(scratch)
            case = load_case(name, options.data, folder)
            program = build(case, target, folder, threads)
            with realtime(options.realtime), busy_core(options.busy_core):
                if options.busy_core:
                    repeat = max(1, round(_SECONDS_PER_ROUND / TimedProgram.once(program, case.samples[0])))
                    found = own(program, repeat, threads)
                else:
                    found = contenders(case, program, folder, threads, options.openvino_python)
                show(case, measure(case, found, options.rounds))
                for contender in found.values():
                    contender.close()


if __name__ == "__main__":
    main()
