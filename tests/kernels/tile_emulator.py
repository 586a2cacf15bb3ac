"""Kernels for registers that hold matrices, on processors without them: each instruction is a call of C."""

from __future__ import annotations

import ctypes
import functools
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from tvm.script.ir_builder import tirx as T

from hwptq.kernels import tile_instructions
from hwptq.targets.schema import Descriptor
from hwptq.targets.templates.tile_registers import TileRegistersKernel

SOURCE = Path(__file__).with_suffix(".c")
INSTRUCTIONS = ("configure", "release", "load", "store", "multiply", "clear")
#: Its intrinsics are the functions of the emulator.
KERNEL = TileRegistersKernel(
    **{name: f"tile_{name}" for name in INSTRUCTIONS}, near_bytes=4096, group_tokens=2
)


def with_tile_registers(target: Descriptor, kernel: TileRegistersKernel = KERNEL) -> Descriptor:
    """The target whose convolutions and dense layers take the kernel."""
    ops = tuple(
        replace(r, kernel="tiles", otherwise=r.kernel) if r.op in kernel.serves else r for r in target.ops
    )
    return replace(target, kernels={**target.kernels, "tiles": kernel}, ops=tuple(ops))


@contextmanager
def emulating() -> Iterator[None]:
    """A context in which kernels are made whose instructions are calls of the emulator."""
    _load()
    with mock.patch.object(tile_instructions, "_instruction", _called):
        yield


def _called(function: str, *operands: Any) -> None:
    T.evaluate(T.call_extern("int32", function, *operands))


@functools.cache
def _load() -> ctypes.CDLL:
    """The emulator joins this process, where code that TVM links finds its functions."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "emulator.so"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
        return ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
