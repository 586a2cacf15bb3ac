"""A model.so for TVM's runtime, from the same kernels as the static program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from tvm import tirx
from tvm.script.ir_builder import tirx as T
from tvm_ffi import structural_map

from hwptq.backends.toolchain import call_tool, compiler_version
from hwptq.cache.cache import Cache
from hwptq.cache.content import BYTES
from hwptq.errors import HwptqError
from hwptq.targets import Descriptor
from hwptq.tir.builder import CYCLES, Flat, primfunc
from hwptq.tir.kernel import TensorType

from .levels import generate_at_some_level
from .taps import with_taps

#: Bytes of constants from which there is no library: TVM copies them several times, in memory, to write them.
MOST_CONSTANTS = 2**29
#: Cycles of a kernel that TVM's pool gains from; each launch costs it more than our own pool.
_LEAST_SHARED = 50_000
#: Kernels don't look at their arguments: `main` and `taps` have, and most of the time went into that.
_UNCHECKED = {"tirx.disable_assert": True}


@dataclass(frozen=True)
class Compiled:
    """A kernel of the static program that needs nothing of a runtime: its C function, and its object."""

    symbol: str
    file: Path


def build_library(
    mod: tvm.IRModule, target: Descriptor, path: Path, cache: Cache | None = None,
    compiled: Mapping[str, Compiled] | None = None,
) -> None:  # fmt: skip
    """Build `path` for tvm.runtime.load_module and relax.VirtualMachine: functions `main` and `taps`.

    compiled: of the module's PrimFuncs, by name; they are linked, and the others compiled.
    """
    ready = compiled or {}

    def generate(device: Any) -> None:
        with tvm.transform.PassContext(config=_UNCHECKED):
            executable = tvm.compile(_small_ones_alone(with_taps(_calling(mod, ready))), target=device)
        link = _linker(target, path.parent, [str(kernel.file.resolve()) for kernel in ready.values()])
        executable.export_library(str(path.resolve()), fcompile=link)

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


def _linker(target: Descriptor, folder: Path, kernels: Sequence[str]) -> Callable[..., None]:
    """What links the objects that TVM writes; its own way would not say why a linker failed.

    Calls of `kernels` stay in the library, whatever else in the process has such names.
    """

    def link(library: str, objects: Sequence[str], options: Sequence[str] = ()) -> None:
        command = [target.toolchain.compiler[0], "-shared", "-fPIC", "-Wl,-Bsymbolic", "-o", library]
        call_tool([*command, *options, *objects, *kernels], folder)

    return link


def _calling(mod: tvm.IRModule, compiled: Mapping[str, Compiled]) -> tvm.IRModule:
    """The module with calls of C functions for what is compiled."""
    out = mod.clone()
    for gv, func in mod.functions.items():
        if gv.name_hint in compiled:
            out[gv] = _call(func, compiled[gv.name_hint].symbol)
    return out


def _call(func: tirx.PrimFunc, symbol: str) -> tirx.PrimFunc:
    """A kernel of the same tensors as `func` that calls `symbol`."""

    def emit(*tensors: Flat) -> None:
        T.evaluate(T.call_extern("int32", symbol, *(tensor.address(0) for tensor in tensors)))

    types = [TensorType(tuple(int(d) for d in p.shape), str(p.dtype)) for p in func.params]
    return primfunc(types, {}, emit)


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
