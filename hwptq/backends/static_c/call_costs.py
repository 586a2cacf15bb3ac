"""What each call of a kernel costs in one inference: nanoseconds here, or instructions under an emulator.

Natively a second build of the same kernels has a clock around each call. An emulator counts what each
function executes; calls of one function, which are alike, share its count.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import tvm

from hwptq.backends.program import Program
from hwptq.errors import HwptqError
from hwptq.targets import Descriptor

from .c_source import profiler_program
from .candidate_costs import NANOSECONDS, unit_of_costs
from .instruction_counter import InstructionCounter
from .memory_plan import MemoryPlan, plan_memory
from .runtime import link_program
from .static_program import compile_parts

_PREFIX = "profiled"


def call_costs(
    mod: tvm.IRModule, program: Program, target: Descriptor, sample: bytes, folder: Path
) -> tuple[float, ...]:
    """The cost of each of `program.calls`, in the unit of `unit_of_costs`.

    mod: the module of kernels it was built from; sample: the inputs of one, as the program reads them;
    folder: for files. Raises HwptqError where a program fails.
    """
    if unit_of_costs(target) == NANOSECONDS:
        return _nanoseconds(mod, program, target, sample, folder)
    return _instructions(program, target, sample, folder)


def _nanoseconds(
    mod: tvm.IRModule, program: Program, target: Descriptor, sample: bytes, folder: Path
) -> tuple[float, ...]:
    with tvm.target.Target(dict(target.tvm)):
        plan = plan_memory(mod, tuple(t.name for t in program.outputs), target.memory.alignment)
    command = [str(build_profiler(plan, target, folder))]
    done = subprocess.run(command, input=sample, capture_output=True, check=False)
    if done.returncode:
        raise HwptqError(f"the program that times kernels failed with status {done.returncode}")
    return tuple(map(float, done.stderr.split()))


def build_profiler(plan: MemoryPlan, target: Descriptor, folder: Path) -> Path:
    """The program, in `folder`, that writes the least nanoseconds of each call for a sample that it reads."""
    compile_parts(plan, _PREFIX, target, folder, clocked=True)
    (folder / "main.c").write_text(profiler_program(plan, _PREFIX, target.memory), encoding="utf-8")
    link_program(target, ["main.c", "kernels.o", "calls.o", "weights.o"], folder / _PREFIX, folder)
    return (folder / _PREFIX).resolve()


def _instructions(program: Program, target: Descriptor, sample: bytes, folder: Path) -> tuple[float, ...]:
    file = program.command[-1]
    counts = InstructionCounter(target.toolchain.run, folder).count([file], sample)
    times = Counter(program.calls)
    prefix = Path(file).name
    return tuple(counts[f"{prefix}_{function}"] / times[function] for function in program.calls)
