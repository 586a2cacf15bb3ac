"""Each kernel of a program compiled by itself, so that it can be found again in the cache; then joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from hwptq.backends.toolchain import call_tool
from hwptq.cache.cache import Cache
from hwptq.cache.content import Content, states
from hwptq.targets import Descriptor

from .apart import share_apart
from .levels import time_for
from .raw_functions import generate_object, lower, workspaces, write_object

#: The bytes of an object, uint8, and the bytes of scratch memory that its function asks for.
_OBJECT: Content[tuple[np.ndarray, int]] = states(())


def write_kernels(
    functions: Mapping[str, Any], prefix: str, target: Descriptor, folder: Path, cache: Cache
) -> dict[str, int]:
    """Compile PrimFuncs by symbol name to kernels.o, and each to one of kernel_files, in `folder`. prefix: of
    what they ask a runtime for.

    Returns the bytes of scratch memory that each function asks for, where it does.
    """
    causes = [(name, func, prefix, target.tvm, target.memory.alignment) for name, func in functions.items()]
    compiled = cache.recall_all(
        "kernel", causes, _OBJECT, partial(_compiled, list(functions.items()), prefix, target, folder)
    )
    parts = kernel_files(len(compiled))
    for part, (code, _) in zip(parts, compiled, strict=True):
        (folder / part).write_bytes(code.tobytes())
    join_objects(target, folder / "kernels.o", parts, folder)
    return {name: scratch for name, (_, scratch) in zip(functions, compiled, strict=True) if scratch}


def kernel_files(count: int) -> list[str]:
    """The objects of so many kernels, each by itself."""
    return [f"kernel{number}.o" for number in range(count)]


def join_objects(
    target: Descriptor, joined: Path, parts: Sequence[str], folder: Path, flags: Sequence[str] = ()
) -> None:
    """Make one object of several in `folder`. Raises HwptqError where the linker fails."""
    tools = target.toolchain
    flags = [*tools.join_flags, *flags]
    call_tool([*tools.compiler, "-r", "-nostdlib", *flags, "-o", str(joined.resolve()), *parts], folder)


def _compiled(
    functions: Sequence[tuple[str, Any]],
    prefix: str,
    target: Descriptor,
    folder: Path,
    numbers: Sequence[int],
) -> Iterator[tuple[np.ndarray, int]]:
    """The kernels of these numbers, in their order: together on all cores, alone where that did not end."""
    device, alignment = tvm.target.Target(dict(target.tvm)), target.memory.alignment

    def compile_by(write: Callable[..., None], number: int) -> None:
        name, func = functions[number]
        lowered, file = lower({name: func}, device, alignment), folder / f"new{number}.o"
        write(lowered, device, file, prefix)
        kept = np.frombuffer(file.read_bytes(), np.uint8), workspaces(lowered, alignment).get(name, 0)
        file.with_suffix(".part").write_bytes(_OBJECT.write(kept))
        file.with_suffix(".part").rename(file.with_suffix(".compiled"))  # whole, or absent
        file.unlink()

    slow = share_apart(partial(compile_by, generate_object), numbers, time_for(1))
    for number in numbers:
        compiled = folder / f"new{number}.compiled"
        if not compiled.exists():
            compile_by(partial(write_object, slow=number in slow), number)
        yield _OBJECT.read(compiled.read_bytes())
        compiled.unlink()
