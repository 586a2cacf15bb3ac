"""Building a lowered module into a program, by what programs of the target stand on."""

from __future__ import annotations

from pathlib import Path

import tvm

from hwptq.targets import Descriptor

from .cuda_program import build_cuda_program
from .static_program import StaticProgram, build_program


def build(
    mod: tvm.IRModule, output_names: tuple[str, ...], name: str, target: Descriptor, folder: Path
) -> StaticProgram:
    """A program that reads samples from standard input and writes outputs to standard output."""
    builder = build_cuda_program if target.toolchain.runtime == "tvm" else build_program
    return builder(mod, output_names, name, target, folder)
