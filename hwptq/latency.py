"""How long compiled code takes, with its spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from .artifact import CompiledModel
from .backends.program import Program
from .backends.static_c.instruction_counter import InstructionCounter, counts_under
from .errors import InputError
from .golden_check import golden_samples

#: Samples whose instructions are counted: they differ little, and an emulator takes its time.
_COUNTED = 4


@dataclass(frozen=True)
class Latency:
    """What one sample costs: least, quartiles and the largest of `runs`. unit: "ms", or "instructions"."""

    executor: str
    unit: str
    runs: int
    least: float
    lower_quartile: float
    median: float
    upper_quartile: float
    most: float
    # clock_mhz and temperature_c, where the machine tells them
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls, costs: Sequence[float], unit: str, executor: str,
        before: dict[str, float] | None = None, after: dict[str, float] | None = None,
    ) -> Latency:  # fmt: skip
        """The spread of some costs."""
        least, lower, median, upper, most = map(float, np.quantile(costs, [0, 0.25, 0.5, 0.75, 1]))
        return cls(
            executor, unit, len(costs), least, lower, median, upper, most, before or {}, after or {}
        )  # fmt: skip

    def row(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def latency(model: CompiledModel, runs: int) -> Latency:
    """That of `runs` calls, on the samples of golden.npz in turn, after a few that are not counted.

    Under an emulator, whose times say nothing, the instructions of some samples instead. Raises InputError
    where neither can be had.
    """
    running, program = model.running, model.program
    stored = [inputs for inputs, _ in golden_samples(model)]
    if running.timed:
        before = running.conditions()
        times = running.times(stored, runs)
        return Latency.of(times, "ms", running.description, before, running.conditions())
    if not counts_under(program.run):
        raise InputError(
            f"{model.folder}: runs here by {running.description}, whose times say nothing about the code; "
            f"bench it on the device"
        )
    return Latency.of(
        _instructions(program, stored[: min(runs, _COUNTED)]), "instructions", running.description
    )


def _instructions(program: Program, samples: Sequence[Mapping[str, np.ndarray]]) -> list[int]:
    """What a sample adds to the instructions of a program that reads none."""
    with TemporaryDirectory(prefix="hwptq-") as folder:
        counter = InstructionCounter(program.run, Path(folder))
        command = program.command[len(program.run) :]

        def total(data: bytes) -> int:
            return counter.count(command, data).total()

        start = total(b"")
        return [total(_bytes(program, sample)) - start for sample in samples]


def _bytes(program: Program, sample: Mapping[str, np.ndarray]) -> bytes:
    parts = (np.ascontiguousarray(sample[t.name], dtype=t.dtype) for t in program.inputs)
    return b"".join(part.tobytes() for part in parts)
