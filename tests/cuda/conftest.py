"""Fixtures of tests that run CUDA kernels on this machine."""

from __future__ import annotations

import ctypes
import subprocess

import pytest

_INTRINSICS = """
#include <math.h>
float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
float __fmul_rn(float a, float b) { return a * b; }
float __fadd_rn(float a, float b) { return a + b; }
float __fdiv_rn(float a, float b) { return a / b; }
"""


@pytest.fixture(scope="session")
def intrinsics(tmp_path_factory: pytest.TempPathFactory) -> None:
    """CUDA's arithmetic that rounds once, for code on this machine."""
    folder = tmp_path_factory.mktemp("intrinsics")
    (folder / "intrinsics.c").write_text(_INTRINSICS)
    command = ["gcc", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "intrinsics.c", "-lm", "-o", "lib.so"]
    subprocess.run(command, cwd=folder, check=True)
    ctypes.CDLL(str(folder / "lib.so"), mode=ctypes.RTLD_GLOBAL)
