"""A Python program that runs a model on this machine's GPU."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator

import numpy as np

from hwptq.backends.host import gpu_model
from hwptq.backends.program import Program

from .executor import Executor, Sample
from .run_program import run_program


class GpuProcess(Executor):
    """One process for each stream of samples."""

    name = "gpu"
    preference = 1

    @classmethod
    def why_not(cls, program: Program) -> str | None:
        if program.machine.device != "gpu":
            return "it is no program for a GPU"
        return None if shutil.which(program.run[0]) else f"{program.run[0]} not found on PATH"

    @property
    def description(self) -> str:
        return gpu_model() or "a GPU"

    def run_stream(self, samples: Iterable[Sample]) -> Iterator[list[np.ndarray]]:
        return run_program(self.program.command, self.program.inputs, self.program.outputs, samples)
