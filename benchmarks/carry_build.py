"""Programs for a machine that has the processor but not hwptq: they are built here, and run there.

    python benchmarks/carry_build.py --data DATA --output FOLDER [--targets A,B] [--models resnet20]

FOLDER then holds a program for each model and target, and the inputs and outputs of a few samples, the
outputs by the reference; benchmarks/carry_run.py compares and times them, and needs nothing but numpy.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from models import NAMES, Case, load_case
from programs import quantized

from hwptq.backends.program import Tensor
from hwptq.backends.static_c.static_program import build_program
from hwptq.evaluate.interpret import Interpreter
from hwptq.targets import load_target

_SAMPLES = 4


def build(case: Case, targets: Sequence[str], folder: Path, output: Path) -> None:
    """<model>.<target> for each target, and <model>.npz."""
    for name in targets:
        target = load_target(name)
        graphs, outputs = quantized(case, target)
        program = build_program(graphs.kernels, outputs, case.name.replace("-", "_"), target, folder)
        shutil.copy(program.program, output / f"{case.name}.{name}")
    samples = case.samples[:_SAMPLES]
    results = [Interpreter(graphs.integer).run(sample) for sample in samples]
    given = [[sample[tensor.name] for tensor in program.inputs] for sample in samples]
    np.savez_compressed(
        output / f"{case.name}.npz",
        inputs=np.stack([_bytes(arrays, program.inputs) for arrays in given]),
        outputs=np.stack([_bytes(arrays, program.outputs) for arrays in results]),
    )


def _bytes(arrays: Sequence[np.ndarray], tensors: Sequence[Tensor]) -> np.ndarray:
    """What a program reads or writes for a sample."""
    parts = zip(arrays, tensors, strict=True)
    return np.frombuffer(b"".join(np.ascontiguousarray(a, t.dtype).tobytes() for a, t in parts), np.uint8)


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    command.add_argument("--data", type=Path, required=True)
    command.add_argument("--targets", default="x86-64-vnni,x86-64-amx")
    command.add_argument("--models", default=",".join(NAMES))
    command.add_argument("--output", type=Path, required=True)
    arguments = command.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.models.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            case = load_case(name, arguments.data, Path(scratch))
            build(case, arguments.targets.split(","), Path(scratch), arguments.output)
        print(name, flush=True)


if __name__ == "__main__":
    main()
