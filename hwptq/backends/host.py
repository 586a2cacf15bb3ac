"""This machine: its processor and its GPU."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from pathlib import Path

from .toolchain import find_program


def architecture() -> str:
    """The processor's, as the system calls it: x86_64, aarch64 …"""
    return platform.machine()


def cpu_identity() -> str:
    """What tells this machine's CPU from others: its model and features; "" where /proc doesn't say."""
    names = ("model name", "model\t", "CPU part", "flags", "Features")
    return " ".join(dict.fromkeys(line for line in _cpu_info() if line.startswith(names)))


def cpu_model() -> str:
    """Such as "AMD EPYC 9B14"; the architecture where /proc has no name for it."""
    names = (line.partition(":")[2].strip() for line in _cpu_info() if line.startswith("model name"))
    return next(names, "") or architecture()


@cache
def cpu_flags() -> frozenset[str]:
    """Features of this machine's CPU, as /proc/cpuinfo names them."""
    return frozenset(
        w for line in _cpu_info() if line.startswith(("flags", "Features")) for w in line.split()
    )


def missing_cpu_features(wanted: tuple[str, ...]) -> str | None:
    """Why code that needs these features can't run here, or None."""
    missing = [f for f in wanted if f not in cpu_flags()]
    return f"this machine's CPU lacks {', '.join(missing)}" if missing else None


def gpu_architecture() -> str:
    """The architecture of this machine's first GPU, such as sm_90; "" where nvidia-smi does not tell."""
    capability = _gpu("compute_cap")
    return f"sm_{capability.replace('.', '')}" if capability else ""


def gpu_model() -> str:
    """Such as "NVIDIA H100 80GB HBM3, driver 580.65"; "" where nvidia-smi does not tell."""
    name, driver = _gpu("name"), _gpu("driver_version")
    return f"{name}, driver {driver}" if name else ""


@cache
def _gpu(field: str) -> str:
    """A field of nvidia-smi for the first GPU; "" where it does not tell."""
    tool = find_program("nvidia-smi")
    if tool is None:
        return ""
    command = [tool, f"--query-gpu={field}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode else (done.stdout.strip().splitlines() or [""])[0].strip()


@cache
def _cpu_info() -> tuple[str, ...]:
    try:
        return tuple(Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines())
    except OSError:
        return ()
