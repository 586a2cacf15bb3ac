"""The backend for NVIDIA GPUs."""

from __future__ import annotations

from pathlib import Path

import tvm

from hwptq.backends.backend import Backend
from hwptq.backends.host import gpu_architecture
from hwptq.backends.program import Program

from .cuda_program import build_cuda_program


class TvmCuda(Backend):
    """A library for TVM's virtual machine, and the Python program that runs it."""

    runtimes = ("tvm",)
    keeps_caches = True

    def build(
        self, mod: tvm.IRModule, output_names: tuple[str, ...], name: str, folder: Path,
        prompt: tvm.IRModule | None = None,
    ) -> Program:  # fmt: skip
        return build_cuda_program(mod, output_names, name, self.target, folder)

    build_program = build

    def why_no_prompt(self, threads: int) -> str | None:
        return "programs for a GPU read one token at a time"

    def why_not_run(self) -> str | None:
        device, wanted = self.target.toolchain.device_file, str(self.target.tvm.get("arch", ""))
        if device and not Path(device).exists():
            return f"this machine has no {device}"
        here = gpu_architecture()
        return f"this machine's GPU is {here}, not {wanted}" if here and wanted.rstrip("af") != here else None

    def why_not_tune(self) -> str | None:
        return "--tune chooses tiles of CPU kernels, and this is no CPU"

    @property
    def hint(self) -> str:
        packages = self.target.toolchain.packages
        return f"install {' '.join(packages)}" if packages else "install it with: pip install 'hwptq[cuda]'"
