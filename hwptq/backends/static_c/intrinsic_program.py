"""A program that calls intrinsics of a descriptor on given vectors: under its emulator, or on this CPU."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tvm

from hwptq.errors import HwptqError
from hwptq.targets import Descriptor
from hwptq.targets.isolate import Crash, isolated
from hwptq.targets.llvm_checks import calling
from hwptq.targets.templates.intrinsics import Call, Vector

from .data_assembly import data_assembly
from .raw_functions import lower, write_object
from .runtime import link_program, started_by

_MAIN = """\
#include <stddef.h>
#include <stdint.h>
extern uint8_t memory[];
long write(int file, const void *p, size_t n);
{prototypes}
int main(void) {{
{calls}
    for (long at = {first}, put; at < {size}; at += put)
        if ((put = write(1, memory + at, {size} - at)) <= 0) return 4;
    return 0;
}}
"""
_TIMEOUT = 60  # seconds

#: The operands of a call, each [tries, lanes].
Operands = Sequence[np.ndarray]


def run_intrinsics(
    calls: Sequence[Call], operands: Sequence[Operands], target: Descriptor, folder: Path
) -> list[np.ndarray]:
    """The results of each call, [tries, lanes]; files go to `folder`.

    Raises HwptqError where no program can be made, or it fails.
    """
    content, alignment = bytearray(), target.memory.alignment

    def put(row: np.ndarray) -> int:
        content.extend(bytes(-len(content) % alignment))
        content.extend(row.tobytes())
        return len(content) - row.nbytes

    given = [[[put(vector[i]) for vector in vectors] for i in range(len(vectors[0]))] for vectors in operands]
    first = len(content)
    empty = [
        np.zeros((len(tries), r.lanes), r.dtype) for r, tries in zip(_results(calls), given, strict=True)
    ]
    taken = [[put(row) for row in result] for result in empty]
    lines = [
        f"    if (check{i}({', '.join(f'memory + {p}' for p in (*inputs, out))})) return 3;"
        for i, (tries, outs) in enumerate(zip(given, taken, strict=True))
        for inputs, out in zip(tries, outs, strict=True)
    ]
    counts = (len(call.vectors) + 1 for call in calls)
    main = _MAIN.format(
        prototypes="\n".join(f"int32_t check{i}({', '.join(['void *'] * n)});" for i, n in enumerate(counts)),
        calls="\n".join(lines), first=first, size=len(content),
    )  # fmt: skip
    (folder / "main.c").write_text(main, encoding="utf-8")
    (folder / "memory.bin").write_bytes(content)
    data = data_assembly("memory", "memory.bin", target, writable=True)
    (folder / "memory.s").write_text(data, encoding="utf-8")
    output = _run(calls, target, folder)
    return [
        np.stack([np.frombuffer(output, like.dtype, like.shape[1], at - first) for at in places])
        for like, places in zip(empty, taken, strict=True)
    ]


def _results(calls: Sequence[Call]) -> list[Vector]:
    return [call.result for call in calls if call.result is not None]


def _run(calls: Sequence[Call], target: Descriptor, folder: Path) -> bytes:
    """Compile, link and run the program: code that LLVM can't make ends a process of its own."""
    native = not target.toolchain.run
    device = tvm.target.Target(_this_cpu(target) if native else dict(target.tvm))

    def compiled() -> bool:
        functions = {f"check{i}": calling(call) for i, call in enumerate(calls)}
        write_object(lower(functions, device, target.memory.alignment), device, folder / "kernels.o")
        return True

    try:
        isolated(compiled)
    except Crash as error:
        raise HwptqError("LLVM can't generate it for this machine") from error
    link_program(target, ["main.c", "memory.s", "kernels.o"], folder / "program", folder)
    command = [*target.toolchain.run, str(started_by(target, folder / "program"))]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HwptqError(f"{command[0]} does not run it: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise HwptqError(f"it ends with status {done.returncode}" + (f": {said[-1]}" if said else ""))
    return done.stdout


def _this_cpu(target: Descriptor) -> dict[str, object]:
    """The device as this CPU, which may have an instruction where it is not the one described."""
    from tvm.target import codegen

    return {**target.tvm, "mcpu": str(codegen.llvm_get_system_cpu()), "mattr": []}
