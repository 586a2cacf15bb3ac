"""Many cases in one program for another CPU: one compilation, one run under the emulator."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tvm
from kernel_cases import UNWRITTEN, Case

from hwptq.backends.static_c.c_source import Workspace, workspace_source
from hwptq.backends.static_c.raw_functions import lower, workspaces, write_object
from hwptq.backends.static_c.static_program import rename_hooks, runtime_sources
from hwptq.backends.toolchain import call_tool
from hwptq.targets import Descriptor

GUARD = 128  # bytes behind every output that must stay as they are
_MAIN = """\
#include <stdint.h>
#include <stddef.h>
extern uint8_t memory[];
{workspace}
long write(int file, const void *p, size_t n);
static void write_all(const uint8_t *p, long n) {{
    for (long put; n > 0 && (put = write(1, p, n)) > 0; n -= put) p += put;
}}
{prototypes}
int main(void) {{
    {start}
{calls}
    return 0;
}}
"""
_MEMORY = '.data\n.balign {alignment}\n.globl memory\nmemory:\n.incbin "memory.bin"\n'


class _Memory:
    """The bytes that the program starts with, every tensor aligned."""

    def __init__(self, alignment: int):
        self.alignment = alignment
        self.content = bytearray()

    def put(self, array: np.ndarray) -> int:
        """Append `array`; its offset."""
        self.content += bytes(-len(self.content) % self.alignment)
        self.content += np.ascontiguousarray(array).tobytes()
        return len(self.content) - array.nbytes


def run_batch(cases: Sequence[Case], target: Descriptor, folder: Path) -> list[np.ndarray]:
    """The results of all cases as they lie in memory, computed by a program built in `folder`."""
    memory, functions = _Memory(target.memory.alignment), {}
    prototypes, calls = [], []
    for i, case in enumerate(cases):
        inputs = [memory.put(a) for a in case.stored()]
        size = 0
        results: list[int] = []
        for j, step in enumerate(case.steps(target)):
            name = f"case{i}_step{j}"
            functions[name] = step.func
            places = [
                memory.put(a) if isinstance(a, np.ndarray) else results[a] if a < 0 else inputs[a]
                for a in step.args
            ]
            stored = step.out.stored
            before = np.full(stored.shape, UNWRITTEN, stored.dtype).tobytes() + bytes([UNWRITTEN]) * GUARD
            size = len(before) - GUARD
            results.append(memory.put(np.frombuffer(before, np.uint8)))
            prototypes.append(f"int32_t {name}({', '.join(['void *'] * (len(places) + 1))});")
            calls.append(
                f"    if ({name}({', '.join(f'memory + {p}' for p in (*places, results[-1]))})) return 1;"
            )
        calls.append(f"    write_all(memory + {results[-1]}, {size + GUARD});")
    output = _build_and_run(functions, memory, "\n".join(prototypes), "\n".join(calls), target, folder)
    expected = [case.in_order() for case in cases]
    ends = np.cumsum([values.nbytes + GUARD for values in expected])
    parts = np.split(np.frombuffer(output, np.uint8), ends[:-1])
    for case, part in zip(cases, parts, strict=True):
        assert np.all(part[-GUARD:] == UNWRITTEN), f"written behind the output: {case}"
    return [
        part[:-GUARD].view(values.dtype).reshape(values.shape)
        for part, values in zip(parts, expected, strict=True)
    ]


def _build_and_run(
    functions: dict[str, tvm.tirx.PrimFunc],
    memory: _Memory,
    prototypes: str,
    calls: str,
    target: Descriptor,
    folder: Path,
) -> bytes:
    device = tvm.target.Target(dict(target.tvm))
    lowered = lower(functions, device, memory.alignment)
    write_object(lowered, device, folder / "kernels.o")
    size = max(workspaces(lowered, memory.alignment).values(), default=0)
    rename_hooks(target, "batch", folder)
    workspace = Workspace(size, memory.alignment, in_arena=False)
    scratch = "\n".join(workspace_source(workspace, "batch")) if size else ""
    start = "use_workspace(NULL);" if size else ""
    (folder / "memory.bin").write_bytes(memory.content)
    (folder / "memory.s").write_text(_MEMORY.format(alignment=memory.alignment))
    (folder / "main.c").write_text(
        _MAIN.format(workspace=scratch, start=start, prototypes=prototypes, calls=calls)
    )
    tools = target.toolchain
    sources = ["main.c", "memory.s", "kernels.o", *runtime_sources(target, folder)]
    call_tool([*tools.compiler, "-O2", *tools.link_flags, *sources, "-o", "program"], folder)
    return subprocess.run([*tools.run, folder / "program"], capture_output=True, check=True).stdout
