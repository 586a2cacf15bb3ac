"""The backend for targets with a C compiler: runtime-free code, with a C library or without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from hwptq.backends.backend import Arena, Backend
from hwptq.backends.host import architecture, missing_cpu_features
from hwptq.backends.program import Program
from hwptq.backends.toolchain import find_program
from hwptq.errors import InputError
from hwptq.targets.templates.intrinsics import Call

from . import candidate_costs
from .call_costs import call_costs
from .footprint import room_for_arena
from .intrinsic_program import run_intrinsics
from .memory_plan import plan_memory
from .runtime import LIBC, RUNTIMES
from .static_program import OBJECT_ONLY, build_program, machine_of


class StaticC(Backend):
    """An object file with a C header, a static program, and libraries where the target has a C library."""

    runtimes = RUNTIMES
    keeps_caches = True

    def build(
        self, mod: tvm.IRModule, output_names: tuple[str, ...], name: str, folder: Path,
        prompt: tvm.IRModule | None = None,
    ) -> Program:  # fmt: skip
        return build_program(mod, output_names, name, self.target, folder, True, self.cache, prompt)

    def why_no_prompt(self, threads: int) -> str | None:
        if self.target.toolchain.runtime != LIBC:
            return "its programs run without a C library"
        return "its threads share the kernels of steps alone" if threads > 1 else None

    def build_program(
        self, mod: tvm.IRModule, output_names: tuple[str, ...], name: str, folder: Path
    ) -> Program:  # fmt: skip
        return build_program(mod, output_names, name, self.target, folder, cache=self.cache)

    def arena_of(self, mod: tvm.IRModule, output_names: tuple[str, ...]) -> Arena:
        with tvm.target.Target(dict(self.target.tvm)):
            plan = plan_memory(mod, output_names, self.target.memory.alignment)
        return Arena(plan.arena_bytes, room_for_arena(plan, self.target))

    def why_not_run(self) -> str | None:
        tools = self.target.toolchain
        if tools.emit == "object":
            return OBJECT_ONLY
        if tools.run:
            return None
        if (made_for := machine_of(self.target).architecture) != architecture():
            return f"it is code for {made_for}, this machine is {architecture()}; toolchain.run is empty"
        if tools.device_file and not Path(tools.device_file).exists():
            return f"this machine has no {tools.device_file}"
        return missing_cpu_features(tools.cpu_features)

    def why_not_tune(self) -> str | None:
        run = self.target.toolchain.run
        if run and not run[0].startswith("qemu-"):
            return f"{run[0]} doesn't count instructions"
        return self.why_not_run()

    def unit_of_costs(self) -> str:
        return candidate_costs.unit_of_costs(self.target)

    def candidate_costs(self, layers: Sequence[Any], folder: Path) -> Iterator[tuple[float, ...]]:
        return candidate_costs.candidate_costs(layers, self.target, folder)

    def why_not_profile(self, threads: int) -> str | None:
        return "threads share its kernels" if threads > 1 else self.why_not_tune()

    def call_costs(
        self, mod: tvm.IRModule, program: Program, sample: bytes, folder: Path
    ) -> tuple[float, ...]:  # fmt: skip
        return call_costs(mod, program, self.target, sample, folder)

    def why_not_try(self) -> str | None:
        tools = self.target.toolchain
        missing = [c[0] for c in (tools.compiler, tools.run) if c and find_program(c[0]) is None]
        if missing:
            return f"{' and '.join(missing)} not found on PATH; {self.hint}"
        if tools.emit == "object":
            return OBJECT_ONLY
        made_for = machine_of(self.target).architecture
        return None if tools.run or made_for == architecture() else f"no emulator of {made_for} is named"

    def run_intrinsics(
        self, calls: Sequence[Call], operands: Sequence[Sequence[np.ndarray]], folder: Path
    ) -> list[np.ndarray]:  # fmt: skip
        return run_intrinsics(calls, operands, self.target, folder)

    def check(self, threads: int = 1, here: bool = True) -> None:
        super().check(threads, here)
        if threads > 1 and self.target.toolchain.runtime != LIBC:
            raise InputError(
                f"{self.target.name}: its programs run without a C library, so --threads can only be 1"
            )
