"""A process of its own, on this machine's processor or under an emulator, fed through pipes."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np

from hwptq.backends.host import architecture, cpu_model, missing_cpu_features
from hwptq.backends.program import Machine, Program

from .executor import Executor, Sample
from .run_program import run_program, run_requests


class Process(Executor):
    """One process for each stream of samples."""

    name = "process"
    preference = 1
    prompts = True

    @classmethod
    def why_not(cls, program: Program) -> str | None:
        if program.machine.device != "cpu":
            return "it is no program for a processor"
        if program.run:
            return None if shutil.which(program.run[0]) else f"{program.run[0]} not found on PATH"
        return why_not_native(program.machine)

    @property
    def description(self) -> str:
        if not self.program.run:
            return f"native: {cpu_model()}"
        version = _version(self.program.run[0])
        return " ".join(self.program.run) + (f" ({version})" if version else "")

    def run_stream(self, samples: Iterable[Sample]) -> Iterator[list[np.ndarray]]:
        program = self.program
        if program.prompt is None:
            return run_program(program.command, program.inputs, program.outputs, samples)
        return run_requests(program, samples)


def why_not_native(machine: Machine) -> str | None:
    """Why this machine's processor can't run code for `machine`, or None where it can."""
    if machine.architecture not in ("", architecture()):
        return f"it is code for {machine.architecture}, and this machine is {architecture()}"
    return missing_cpu_features(machine.cpu_features)


@cache
def _version(program: str) -> str:
    """What an emulator says of itself: "qemu-aarch64 version 7.2.22 …" -> "version 7.2.22", "v20.1.0" ->
    "version 20.1.0"; "" if nothing."""
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False, timeout=10
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\b(?:version |v)(\d\S*)", done.stdout)
    return f"version {found[1]}" if found else ""
