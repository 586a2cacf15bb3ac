"""Counting instructions of AArch64 programs under qemu-aarch64, and ONNX Runtime as such a program."""

from __future__ import annotations

import subprocess
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hwptq.backends.static_c.instruction_counter import InstructionCounter

_SOURCES = Path(__file__).resolve().parent / "aarch64"
_CROSS = "aarch64-linux-gnu"
#: What ONNX Runtime asks of /proc and /sys; the host's answers, of an x86 machine, make it crash.
_MACHINE = {
    "sys/devices/system/cpu/possible": "0\n",
    "sys/devices/system/cpu/present": "0\n",
    "proc/cpuinfo": "processor : 0\nCPU implementer : 0x41\nCPU architecture : 8\n"
    "CPU variant : 0x3\nCPU part : 0xd0b\nCPU revision : 0\n\n",
}


def per_inference(counted: InstructionCounter, program: Path, data: bytes) -> Counter[str]:
    """Instructions of one inference of a static program of hwptq, by function."""
    once, twice = (counted.count([program, "--repeat", n], data) for n in (1, 2))
    return twice - once


class OnnxRuntime:
    """The aarch64 wheel of ONNX Runtime, unpacked into `folder`, and a program that runs a model with it."""

    def __init__(self, wheel: Path, folder: Path):
        self.root, self.folder = folder / "machine", folder
        for name, text in _MACHINE.items():
            file = self.root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        (self.root / "lib").symlink_to(f"/usr/{_CROSS}/lib")
        self.libraries = folder / "onnxruntime" / "capi"
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (n for n in archive.namelist() if "/libonnxruntime.so." in n)
            library = Path(archive.extract(name, folder))
        (self.libraries / "libonnxruntime.so.1").symlink_to(library.name)
        self.program = folder / "run_onnx_runtime"
        linking = (f"-Wl,-rpath-link,{self.libraries}", library)
        _build(f"{_CROSS}-gcc", "-O2", "-Wall", _SOURCES / "run_onnx_runtime.c", *linking, "-o", self.program)

    def per_inference(
        self, cpu: str, model: Path, sample: Mapping[str, np.ndarray], output: str
    ) -> Counter[str]:
        """Instructions of one inference of a model with one input, on an emulated `cpu`, one thread."""
        ((name, values),) = sample.items()
        run = ["qemu-aarch64", "-cpu", cpu, "-L", self.root, "-E", f"LD_LIBRARY_PATH={self.libraries}"]
        counted = InstructionCounter([*map(str, run)], self.folder)
        # the first runs allocate memory, later ones reuse it
        few, more = (
            counted.count([self.program, model, n, name, output, *values.shape], values.tobytes())
            for n in (3, 4)
        )
        return more - few


def _build(*command: object) -> None:
    subprocess.run([*map(str, command)], check=True)
