"""A model.so for TVM's runtime, from the same kernels as the static program."""

from __future__ import annotations

from pathlib import Path

import tvm

from hwptq.errors import HwptqError
from hwptq.targets import Descriptor


def build_library(mod: tvm.IRModule, target: Descriptor, path: Path) -> None:
    """Build `path`, to be loaded by tvm.runtime.load_module and run by relax.VirtualMachine."""
    try:
        executable = tvm.compile(mod, target=tvm.target.Target(dict(target.tvm)))
        executable.export_library(str(path), cc=target.toolchain.compiler[0])
    except RuntimeError as error:
        raise HwptqError(f"{target.name}: building the shared library failed: {error}") from error
