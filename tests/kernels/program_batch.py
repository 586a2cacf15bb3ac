"""Many cases in one program for another CPU: one compilation, one run under the emulator."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tvm
from kernel_cases import UNWRITTEN, Case

from hwptq.backends.static_c.c_source import Workspace, state_source, workspace_source
from hwptq.backends.static_c.data_assembly import data_assembly
from hwptq.backends.static_c.raw_functions import lower, workspaces, write_object
from hwptq.backends.static_c.runtime import link_program, started_by
from hwptq.targets import Descriptor
from hwptq.tir.builder import OVERLAYS
from hwptq.tir.kernel import Step

GUARD = 128  # bytes behind every output that must stay as they are
_MAIN = """\
#include <stdint.h>
#include <stddef.h>
extern uint8_t memory[];
{parts}
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
    """The results of all cases as they lie in memory, computed by a program built in `folder`.

    Where a kernel allows it, its result is written over an operand; `check` of kernel_cases never does that.
    """
    memory, functions = _Memory(target.memory.alignment), {}
    prototypes, calls = [], []
    for i, case in enumerate(cases):
        activations = case.stored()
        inputs = [memory.put(a) for a in activations]
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
            content = np.full(stored.shape, UNWRITTEN, stored.dtype)
            over = _operand_in_place(step)
            if over is not None:
                functions[name] = step.func.specialize({step.func.params[over]: step.func.params[-1]})
                content = activations[step.args[over]]
                del places[over]
            before = content.tobytes() + bytes([UNWRITTEN]) * GUARD
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


def _operand_in_place(step: Step) -> int | None:
    """The parameter over which the result is written, the last one of those that the kernel allows."""
    allowed = [int(i) for i in str(step.func.attrs.get(OVERLAYS, "")).split()]
    given = [i for i in allowed if not isinstance(step.args[i], np.ndarray) and step.args[i] >= 0]
    return given[-1] if given else None


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
    write_object(lowered, device, folder / "kernels.o", "batch")
    size = max(workspaces(lowered, memory.alignment).values(), default=0)
    workspace = Workspace(size, memory.alignment, in_arena=False)
    component = target.toolchain.state_component
    parts = [
        *(workspace_source(workspace, "batch") if size else []),
        *(state_source(component) if component else []),
    ]
    start = ("find_workspace(NULL);" if size else "") + (" if (use_state()) return 2;" if component else "")
    (folder / "memory.bin").write_bytes(memory.content)
    (folder / "memory.s").write_text(data_assembly("memory", "memory.bin", target, writable=True))
    (folder / "main.c").write_text(
        _MAIN.format(parts="\n".join(parts), start=start, prototypes=prototypes, calls=calls)
    )
    link_program(target, ["main.c", "memory.s", "kernels.o"], folder / "program", folder)
    command = [*target.toolchain.run, started_by(target, folder / "program")]
    return subprocess.run(command, capture_output=True, check=True).stdout
