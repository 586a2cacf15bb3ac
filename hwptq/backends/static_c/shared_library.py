"""A model.so for TVM's runtime, from the same kernels as the static program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tvm
from tvm import tirx
from tvm_ffi import structural_map

from hwptq.backends.toolchain import call_tool, compiler_version
from hwptq.cache.cache import Cache
from hwptq.cache.content import BYTES
from hwptq.errors import HwptqError
from hwptq.targets import Descriptor
from hwptq.tir.builder import CYCLES

from .levels import generate_at_some_level
from .taps import with_taps

#: Cycles of a kernel that TVM's pool gains from; each launch costs it more than our own pool.
_LEAST_SHARED = 50_000


def build_library(mod: tvm.IRModule, target: Descriptor, path: Path, cache: Cache | None = None) -> None:
    """Build `path` for tvm.runtime.load_module and relax.VirtualMachine: functions `main` and `taps`."""

    def generate(device: Any) -> None:
        executable = tvm.compile(_small_ones_alone(with_taps(mod)), target=device)
        executable.export_library(str(path.resolve()), fcompile=_linker(target, path.parent))

    def built() -> bytes:
        names = [variable.name_hint for variable in mod.functions]
        try:
            generate_at_some_level(generate, tvm.target.Target(dict(target.tvm)), names)
        except RuntimeError as error:
            raise HwptqError(f"{target.name}: building the shared library failed: {error}") from error
        return path.read_bytes()

    compiler = compiler_version(target.toolchain.compiler[0])
    causes = (mod, target.tvm, target.toolchain.compiler, compiler)
    path.write_bytes((cache or Cache()).recall("library", causes, BYTES, built))


def _linker(target: Descriptor, folder: Path) -> Callable[..., None]:
    """What links the objects that TVM writes; its own way would not say why a linker failed."""

    def link(library: str, objects: Sequence[str], options: Sequence[str] = ()) -> None:
        call_tool(
            [target.toolchain.compiler[0], "-shared", "-fPIC", "-o", library, *options, *objects], folder
        )

    return link


def _small_ones_alone(mod: tvm.IRModule) -> tvm.IRModule:
    """The module with serial loops for the parts of small kernels."""

    def serial(loop: tirx.For) -> tirx.For:
        if loop.kind != tirx.ForKind.PARALLEL or int(loop.annotations.get(CYCLES, 0)) >= _LEAST_SHARED:
            return loop
        return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body)

    out = mod.clone()
    for gv, func in mod.functions.items():
        if isinstance(func, tirx.PrimFunc):
            out[gv] = func.with_body(structural_map(func.body, ((tirx.For, serial),)))
    return out
