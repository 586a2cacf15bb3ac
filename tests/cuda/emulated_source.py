"""Kernels in CUDA C++ on this machine: compiled by g++ with cuda_emulator.h, their threads are threads."""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tvm import tirx

from hwptq.tir.kernel import TensorType

_HEADER = Path(__file__).with_name("cuda_emulator.h")


def emulated(func: Any, arrays: Sequence[np.ndarray], results: Sequence[TensorType]) -> list[np.ndarray]:
    """What a kernel of sourced.py makes of arrays. Skips the test where there is no compiler."""
    found: dict[str, Any] = {}

    body = func.body
    while not isinstance(body, tirx.Evaluate):
        if isinstance(body, tirx.For):
            found[str(body.thread_binding.thread_tag)] = int(body.extent)
        body = body.seq[-1] if isinstance(body, tirx.SeqStmt) else body.body
    found["name"], found["source"] = str(body.value.args[0].value), str(body.value.args[-1].value)
    outs = [np.full(t.shape, 77, t.dtype) for t in results]
    pointers = [*map(np.ascontiguousarray, arrays), *outs]
    types = re.search(rf"void {found['name']}\((.*?)\)", found["source"])
    assert types is not None
    casts = [f"({re.sub(r' p[0-9]+$', '', p)})all[{i}]" for i, p in enumerate(types[1].split(", "))]
    call = f"{found['name']}({', '.join(casts)});"
    grid = f"{found['blockIdx.x']}, {found['threadIdx.x']}"
    run_all = f'extern "C" void run(void** all) {{ launch({grid}, [=] {{ {call} }}); }}'
    text = "\n".join([f'#include "{_HEADER}"', found["source"], run_all, ""])
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "kernel.cpp"), Path(folder, "kernel.so")
        source.write_text(text)
        flags = ["-std=c++20", "-O0", "-fwrapv", "-shared", "-fPIC", "-pthread"]
        command = ["g++", *flags, str(source), "-o", str(library)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("g++ is not installed")
        except subprocess.CalledProcessError as error:
            raise AssertionError(error.stderr) from error
        run = ctypes.CDLL(str(library)).run
        run((ctypes.c_void_p * len(pointers))(*(p.ctypes.data for p in pointers)))
    return outs
