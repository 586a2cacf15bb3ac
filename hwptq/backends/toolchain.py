"""The programs that a descriptor names: compilers, emulators. Found early, run as argument lists."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from hwptq.errors import HwptqError, InputError
from hwptq.targets import Descriptor


def check_programs(target: Descriptor) -> None:
    """Raise InputError where the compiler or the emulator of `target` is not installed."""
    tools = target.toolchain
    missing = [c[0] for c in (tools.compiler, tools.run) if c and find_program(c[0]) is None]
    if missing:
        hint = (
            f"install {' '.join(tools.packages)}"
            if tools.packages
            else "install it with: pip install 'hwptq[cuda]'"
            if tools.runtime == "tvm"
            else "install them, or correct the descriptor"
        )
        raise InputError(f"{target.name}: {' and '.join(missing)} not found on PATH; {hint}")


def find_program(name: str) -> str | None:
    """The path of a program: on PATH, or among those that NVIDIA's Python packages bring."""
    return shutil.which(name, path=call_environment()["PATH"])


def call_environment() -> dict[str, str]:
    """The environment with the programs of NVIDIA's Python packages at the end of PATH."""
    folders = [str(folder) for entry in sys.path for folder in Path(entry).glob("nvidia/cu*/bin")]
    return {**os.environ, "PATH": os.pathsep.join([os.environ.get("PATH", ""), *folders])}


def run_command(target: Descriptor) -> tuple[str, ...]:
    """What stands in front of the program: an emulator, Python, or nothing."""
    return ("python3",) if target.toolchain.runtime == "tvm" else target.toolchain.run


def why_not_run(target: Descriptor) -> str | None:
    """Why programs for `target` can't be run here, or None where they can."""
    if target.toolchain.run:
        return None
    device = target.toolchain.device_file
    if device and not Path(device).exists():
        return f"this machine has no {device}"
    arch, here = str(target.tvm.get("arch", "")), _gpu_arch()
    if target.tvm.get("kind") == "cuda" and here and arch.rstrip("af") != here:
        return f"this machine's GPU is {here}, not {arch}"
    missing = [f for f in target.toolchain.cpu_features if f not in _cpu_flags()]
    return f"this machine's CPU lacks {', '.join(missing)}" if missing else None


def cpu_name() -> str:
    """What tells this machine's CPU from others: its model and features; "" where /proc doesn't say."""
    names = ("model name", "model\t", "CPU part", "flags", "Features")
    return " ".join(dict.fromkeys(line for line in _cpu_info() if line.startswith(names)))


@cache
def _gpu_arch() -> str:
    """The architecture of this machine's first GPU, such as sm_90; "" where nvidia-smi does not tell."""
    tool = find_program("nvidia-smi")
    if tool is None:
        return ""
    command = [tool, "--query-gpu=compute_cap", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    first = (done.stdout.strip().splitlines() or [""])[0]
    return "" if done.returncode or not first else f"sm_{first.replace('.', '')}"


@cache
def _cpu_flags() -> frozenset[str]:
    """Features of this machine's CPU, as /proc/cpuinfo names them."""
    return frozenset(
        w for line in _cpu_info() if line.startswith(("flags", "Features")) for w in line.split()
    )


@cache
def _cpu_info() -> tuple[str, ...]:
    try:
        return tuple(Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines())
    except OSError:
        return ()


def call_tool(command: Sequence[str], folder: Path) -> None:
    """Run a compiler or linker in `folder`. Raises HwptqError with its first line where it fails."""
    done = subprocess.run(list(command), cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        reason = next(
            (line for line in lines if "error" in line or "undefined" in line), (lines or ["no message"])[0]
        )
        raise HwptqError(f"{command[0]} failed with status {done.returncode}: {reason}")
