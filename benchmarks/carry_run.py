"""Compares and times what carry_build.py or carry_decoders.py built, on the machine it was carried to.

    python benchmarks/carry_run.py FOLDER [--models resnet20,kws] [--rounds 11] [--threads 1]

Outputs must equal those of the reference to the byte. Programs of a model are timed in turn, and the models
of carry_peers.py with them where onnxruntime and openvino are found: one thread in processor time, several by
the clock. A line gives the median with the least and the most, and the median of the ratios within a round to
the first in the order of the alphabet; of a decoder, for each number of tokens that came before. Programs
that time each kernel come last. It needs numpy alone.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Feed = dict[str, np.ndarray]
_NANOSECONDS_PER_ROUND = 6e7
_NO_PROGRAMS = (".npz", ".timed", ".txt", ".onnx", ".xml", ".bin")
#: (times) -> nanoseconds of one inference, the mean of so many
Timer = Callable[[int], float]


def run(program: Path, data: np.ndarray, threads: int, repeat: int = 0) -> tuple[bytes, int]:
    """Output, and nanoseconds of an inference if it is repeated. Raises RuntimeError where it fails."""
    options = ["--repeat", str(repeat), "--threads", str(threads)] if repeat else []
    done = subprocess.run(
        [str(program.resolve()), *options], input=data.tobytes(), capture_output=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{program.name}: status {done.returncode}: {done.stderr[-200:]!r}")
    return done.stdout, int(done.stderr.split()[threads == 1]) if repeat else 0


def timed(infer: Callable[[], Any], threads: int) -> Timer:
    """Times of what runs in this process."""
    clock = time.process_time_ns if threads == 1 else time.perf_counter_ns

    def nanoseconds(repeat: int) -> float:
        infer()
        start = clock()
        for _ in range(repeat):
            infer()
        return (clock() - start) / repeat

    return nanoseconds


def onnx_runtime(model: Path, threads: int, given: Feed) -> Timer:
    """A model in ONNX Runtime, on noise where no input is given. Raises ImportError where that is absent."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    shapes = {i.name: [d if isinstance(d, int) else 1 for d in i.shape] for i in session.get_inputs()}
    feed = {name: given.get(name, _noise(shape)) for name, shape in shapes.items()}
    return timed(lambda: session.run(None, feed), threads)


def openvino(model: Path, threads: int) -> Timer:
    """A model in OpenVINO. Raises ImportError where that is absent."""
    import openvino

    config = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(str(model), "CPU", config).create_infer_request()
    inputs = request.model_inputs
    request.set_input_tensors([openvino.Tensor(_noise(list(i.shape))) for i in inputs])
    return timed(request.infer, threads)


def _noise(shape: list[int]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def contenders(folder: Path, model: str, one: np.ndarray, given: Feed, threads: int) -> dict[str, Timer]:
    """All that is timed of a model, on one sample."""
    found: dict[str, Timer] = {}
    for file in sorted(folder.glob(f"{model}.*")):
        try:
            if file.suffix not in _NO_PROGRAMS:
                found[file.name] = lambda repeat, p=file: run(p, one, threads, repeat)[1]  # type: ignore[misc]
            elif file.suffix == ".onnx":
                found[file.name] = onnx_runtime(file, threads, given)
            elif file.suffix == ".xml":
                found[file.name] = openvino(file, threads)
        except ImportError as error:
            print(f"{file.name} is not timed: {error}")
    return found


def measure(folder: Path, model: str, rounds: int, threads: int) -> str:
    """The lines of one model."""
    stored = np.load(folder / f"{model}.npz")
    lines = []
    for program in sorted(p for p in folder.glob(f"{model}.*") if p.suffix not in _NO_PROGRAMS):
        program.chmod(0o755)
        found = np.frombuffer(run(program, stored["inputs"], threads)[0], np.uint8)
        differing = int((found != stored["outputs"].reshape(-1)).sum())
        lines.append(f"{program.name}: {differing} of {found.size} bytes differ")
    feeds = {key.removeprefix("feed."): stored[key] for key in stored.files if key.startswith("feed.")}
    if "timed" not in stored.files:
        return "\n".join(
            [*lines, *times(contenders(folder, model, stored["inputs"][:1], {}, threads), rounds)]
        )
    for i, label in enumerate(stored["labels"]):
        given = {name: values[i] for name, values in feeds.items()}
        timers = contenders(folder, model, stored["timed"][i : i + 1], given, threads)
        lines += [f"{model}, {label}:", *times(timers, rounds)]
    return "\n".join(lines)


def times(timers: dict[str, Timer], rounds: int) -> list[str]:
    """A line for each, measured in turn."""
    repeats = {name: max(1, int(_NANOSECONDS_PER_ROUND / max(t(3), 1))) for name, t in timers.items()}
    taken: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(rounds):
        for name, timer in timers.items():
            taken[name].append(timer(repeats[name]))
    base, lines = next(iter(taken)), []
    for name, mine in taken.items():
        ratio = statistics.median(a / b for a, b in zip(taken[base], mine, strict=True))
        milliseconds = [t * 1e-6 for t in (statistics.median(mine), min(mine), max(mine))]
        spread = "{:.3f} ms ({:.3f} … {:.3f})".format(*milliseconds)
        lines.append(f"{name}: {spread}, {ratio:.2f} x as fast as {base}")
    return lines


def kernels(folder: Path, model: str) -> str:
    """Of each program with names of its kernels: the least microseconds of each, and its share."""
    one, lines = np.load(folder / f"{model}.npz")["inputs"][:1], []
    for names in sorted(folder.glob(f"{model}.*.timed.txt")):
        program = names.with_suffix("")
        program.chmod(0o755)
        done = subprocess.run([str(program.resolve())], input=one.tobytes(), capture_output=True, check=True)
        times = np.array([int(line) for line in done.stderr.split()]) * 1e-3
        lines.append(f"{program.name}: {times.sum():.1f} us")
        for microseconds, what in zip(times, names.read_text(encoding="utf-8").splitlines(), strict=True):
            lines.append(f"{microseconds:10.2f} us {microseconds / times.sum():6.1%}  {what}")
    return "\n".join(lines)


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    command.add_argument("folder", type=Path)
    command.add_argument("--models", default="")
    command.add_argument("--rounds", type=int, default=11)
    command.add_argument("--threads", type=int, default=1)
    arguments = command.parse_args()
    names = arguments.models.split(",") if arguments.models else []
    names = names or sorted(p.stem for p in arguments.folder.glob("*.npz"))
    for model in names:
        print(measure(arguments.folder, model, arguments.rounds, arguments.threads), flush=True)
    for model in names:
        if found := kernels(arguments.folder, model):
            print(found, flush=True)


if __name__ == "__main__":
    main()
