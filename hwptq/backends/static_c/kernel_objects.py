"""Each kernel of a program compiled by itself, so that it can be found again in the cache; then joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from hwptq.backends.toolchain import call_tool
from hwptq.cache.cache import Cache
from hwptq.cache.content import Content, states
from hwptq.targets import Descriptor

from .raw_functions import lower, workspaces, write_object

#: The bytes of an object, uint8, and the bytes of scratch memory that its function asks for.
_OBJECT: Content[tuple[np.ndarray, int]] = states(())


def write_kernels(
    functions: Mapping[str, Any], prefix: str, target: Descriptor, folder: Path, cache: Cache
) -> dict[str, int]:
    """Compile PrimFuncs by symbol name to kernels.o in `folder`. prefix: of what they ask a runtime for.

    Returns the bytes of scratch memory that each function asks for, where it does.
    """
    parts, wanted = [], {}
    for number, (name, func) in enumerate(functions.items()):
        causes = (name, func, prefix, target.tvm, target.memory.alignment)
        code, scratch = cache.recall(
            "kernel", causes, _OBJECT, partial(_compiled, name, func, prefix, target, folder)
        )
        parts.append(f"kernel{number}.o")
        (folder / parts[-1]).write_bytes(code.tobytes())
        if scratch:
            wanted[name] = scratch
    join_objects(target, folder / "kernels.o", parts, folder)
    return wanted


def join_objects(
    target: Descriptor, joined: Path, parts: Sequence[str], folder: Path, flags: Sequence[str] = ()
) -> None:
    """Make one object of several in `folder`. Raises HwptqError where the linker fails."""
    tools = target.toolchain
    flags = [*tools.join_flags, *flags]
    call_tool([*tools.compiler, "-r", "-nostdlib", *flags, "-o", str(joined.resolve()), *parts], folder)


def _compiled(
    name: str, func: Any, prefix: str, target: Descriptor, folder: Path
) -> tuple[np.ndarray, int]:  # fmt: skip
    device, alignment, file = tvm.target.Target(dict(target.tvm)), target.memory.alignment, folder / "one.o"
    lowered = lower({name: func}, device, alignment)
    write_object(lowered, device, file, prefix)
    return np.frombuffer(file.read_bytes(), np.uint8), workspaces(lowered, alignment).get(name, 0)
