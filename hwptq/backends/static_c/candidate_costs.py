"""What candidates for a kernel cost: nanoseconds on this machine, or instructions under an emulator.

One program holds all candidates of all layers. Natively it times them in turn, so that what else the machine
does meets them alike; an emulator counts what each function executes.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import tvm

from hwptq.errors import HwptqError
from hwptq.targets import Descriptor
from hwptq.tir.kernel import Step, TensorType

from .c_source import Workspace, data_file, state_source, workspace_source
from .instruction_counter import InstructionCounter
from .raw_functions import lower, workspaces, write_object
from .runtime import link_program, started_by

_PREFIX = "candidates"
#: The units of costs.
NANOSECONDS, INSTRUCTIONS = "ns", "instructions"


@dataclass(frozen=True)
class Candidates:
    """The ways to compute one layer: the steps of each, on activations of these types."""

    activations: tuple[TensorType, ...]
    steps: tuple[tuple[Step, ...], ...]


def unit_of_costs(target: Descriptor) -> str:
    """What candidates for `target` are compared by."""
    return INSTRUCTIONS if target.toolchain.run else NANOSECONDS


def candidate_costs(
    layers: Sequence[Candidates], target: Descriptor, folder: Path
) -> Iterator[tuple[float, ...]]:
    """The cost of each candidate of each layer, as soon as it is known. `folder` is for the program.

    Raises HwptqError where a program fails.
    """
    if unit_of_costs(target) == NANOSECONDS:
        program = _build(layers, target, folder, "candidate_timer.c.in")
        yield from _times([str(program)], layers)
        return
    counter = InstructionCounter(target.toolchain.run, folder)
    counts = counter.count([_build(layers, target, folder, "candidate_calls.c.in")], b"")
    for i, layer in enumerate(layers):
        sizes = enumerate(map(len, layer.steps))
        yield tuple(float(sum(counts[_name(i, j, k)] for k in range(n))) for j, n in sizes)


def _name(layer: int, candidate: int, step: int) -> str:
    return f"layer{layer}_candidate{candidate}_step{step}"


def _build(layers: Sequence[Candidates], target: Descriptor, folder: Path, main: str) -> Path:
    """The program, from the main program `main`."""
    device, alignment = tvm.target.Target(dict(target.tvm)), target.memory.alignment
    functions = {
        _name(i, j, k): step.func
        for i, layer in enumerate(layers)
        for j, steps in enumerate(layer.steps)
        for k, step in enumerate(steps)
    }
    lowered = lower(functions, device, alignment)
    write_object(lowered, device, folder / "kernels.o", _PREFIX)
    size, calls = 0, []
    for i, layer in enumerate(layers):
        for j, steps in enumerate(layer.steps):
            used, lines = _calls(layer.activations, steps, alignment, (i, j))
            size = max(size, used)
            calls.append(f"static int candidate_{i}_{j}(void) {{ return {' | '.join(lines)}; }}")
    scratch = Workspace(max(workspaces(lowered, alignment).values(), default=0), alignment, in_arena=False)
    text = data_file(main)
    component = target.toolchain.state_component
    starts = ["if (use_state()) return 3;"] * bool(component) + ["find_workspace(0);"] * bool(scratch.size)
    sources = [*(state_source(component) if component else [])]
    sources += workspace_source(scratch, _PREFIX) if scratch.size else []
    for key, value in {
        "WORKSPACE": "\n".join(sources),
        "START": " ".join(starts),
        "MEMORY": f"static uint8_t memory[{size + target.memory.readable_behind}]"
        f" __attribute__((aligned({alignment})));",
        "PROTOTYPES": "\n".join(
            f"int32_t {name}({', '.join(['void *'] * len(f.params))});" for name, f in functions.items()
        ),
        "CANDIDATES": "\n".join(calls),
        "LAYERS": ", ".join(f"{{{len(layer.steps)}, {_table(i, layer)}}}" for i, layer in enumerate(layers)),
        "MOST": str(max(len(layer.steps) for layer in layers)),
    }.items():
        text = text.replace(f"@{key}@", value)
    (folder / "main.c").write_text(text, encoding="utf-8")
    link_program(target, ["main.c", "kernels.o"], folder / "candidates", folder)
    return started_by(target, folder / "candidates")


def _table(i: int, layer: Candidates) -> str:
    return f"{{{', '.join(f'candidate_{i}_{j}' for j in range(len(layer.steps)))}}}"


def _calls(
    activations: Sequence[TensorType], steps: Sequence[Step], alignment: int, at: tuple[int, int]
) -> tuple[int, list[str]]:
    """Bytes of memory for a candidate, and its calls. Every tensor has its own place, full of zeros."""
    size = 0

    def place(nbytes: int) -> int:
        nonlocal size
        start = size
        size += -(-nbytes // alignment) * alignment
        return start

    inputs = [place(_nbytes(t)) for t in activations]
    results: list[int] = []
    lines = []
    for k, step in enumerate(steps):
        args = [
            place(a.nbytes) if isinstance(a, np.ndarray) else results[a] if a < 0 else inputs[a]
            for a in step.args
        ]
        results.append(place(_nbytes(step.out)))
        lines.append(f"{_name(*at, k)}({', '.join(f'memory + {p}' for p in (*args, results[-1]))})")
    return size, lines


def _nbytes(tensor: TensorType) -> int:
    stored = tensor.stored
    return prod(stored.shape) * np.dtype(stored.dtype).itemsize


def _times(command: list[str], layers: Sequence[Candidates]) -> Iterator[tuple[float, ...]]:
    """What the program writes: a line for each layer."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for layer, line in zip(layers, process.stdout, strict=False):
            costs = tuple(map(float, line.split()))
            assert len(costs) == len(layer.steps)
            yield costs
    if process.returncode:
        raise HwptqError(f"the program that times candidates failed with status {process.returncode}")
