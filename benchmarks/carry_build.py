"""Programs for a machine that has the processor but not hwptq: they are built here, and run there.

    python benchmarks/carry_build.py --data DATA --output FOLDER [--targets A,B] [--models resnet20]
        [--kernels]

FOLDER then holds a program for each model and target, and the inputs and outputs of a few samples, the
outputs by the reference; benchmarks/carry_run.py compares and times them, and needs nothing but numpy.
--kernels adds programs that time each kernel, with the names of these.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tvm
from kernel_times import describe
from models import NAMES, Case, load_case
from programs import quantized

from hwptq.backends.program import Tensor
from hwptq.backends.static_c.call_costs import build_profiler
from hwptq.backends.static_c.memory_plan import plan_memory
from hwptq.backends.static_c.static_program import build_program
from hwptq.evaluate.interpret import Interpreter
from hwptq.pipeline.stages import Graphs
from hwptq.targets import Descriptor, load_target

_SAMPLES = 4


def build(case: Case, targets: Sequence[str], folder: Path, output: Path, kernels: bool) -> None:
    """<model>.<target> for each target, and <model>.npz; `kernels`: <model>.<target>.timed too."""
    for name in targets:
        target = load_target(name)
        graphs, outputs = quantized(case, target)
        program = build_program(graphs.kernels, outputs, case.name.replace("-", "_"), target, folder)
        shutil.copy(program.program, output / f"{case.name}.{name}")
        if kernels:
            build_kernels(graphs, outputs, target, output / f"{case.name}.{name}.timed")
    samples = case.samples[:_SAMPLES]
    results = [Interpreter(graphs.integer).run(sample) for sample in samples]
    given = [[sample[tensor.name] for tensor in program.inputs] for sample in samples]
    np.savez_compressed(
        output / f"{case.name}.npz",
        inputs=np.stack([_bytes(arrays, program.inputs) for arrays in given]),
        outputs=np.stack([_bytes(arrays, program.outputs) for arrays in results]),
    )


def build_kernels(graphs: Graphs, outputs: tuple[str, ...], target: Descriptor, program: Path) -> None:
    """The program that times each kernel, and <program>.txt, a line for each."""
    with tvm.target.Target(dict(target.tvm)):
        plan = plan_memory(graphs.kernels, outputs, target.memory.alignment)
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copy(build_profiler(plan, target, Path(scratch)), program)
    program.with_name(f"{program.name}.txt").write_text("\n".join(describe(plan)), encoding="utf-8")


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
    command.add_argument("--kernels", action="store_true")
    arguments = command.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.models.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            case = load_case(name, arguments.data, Path(scratch))
            targets = arguments.targets.split(",")
            build(case, targets, Path(scratch), arguments.output, arguments.kernels)
        print(name, flush=True)


if __name__ == "__main__":
    main()
