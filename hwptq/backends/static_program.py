"""A model without the TVM runtime: an object file, its header, and one static program."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import tvm

from hwptq.errors import UnsupportedError
from hwptq.targets import Descriptor

from .c_source import data_file, header, identifier, main_program, source, weights_assembly
from .memory_plan import MemoryPlan, Tensor, plan_memory
from .raw_functions import lower, workspaces, write_object
from .toolchain import call_tool

LIBC = "libc"
_C_FLAGS = ("-O2", "-Wall", "-Werror")


@dataclass(frozen=True)
class StaticProgram:
    """The files that were built, and the interface they offer."""

    program: Path  # reads samples from standard input, writes outputs to standard output
    object: Path
    header: Path | None  # of the object, where it is for C
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    arena_bytes: int
    weight_bytes: int


def build_program(
    mod: tvm.IRModule, output_names: tuple[str, ...], name: str, target: Descriptor, folder: Path
) -> StaticProgram:
    """Build <name>, <name>.o and <name>.h in `folder`."""
    prefix = identifier(name)
    device = tvm.target.Target(dict(target.tvm))
    with device:
        plan = plan_memory(mod, output_names, target.memory.alignment)
    with tempfile.TemporaryDirectory(prefix="hwptq-") as scratch:
        work = Path(scratch)
        compile_parts(plan, prefix, target, work)
        compiler = [*target.toolchain.compiler]
        obj, program = folder / f"{prefix}.o", folder / prefix
        call_tool(
            [*compiler, "-r", "-nostdlib", "-o", str(obj.resolve()), "kernels.o", "calls.o", "weights.o"],
            work,
        )
        _link(target, _thread_flags(plan), work, obj, program)
        head = folder / f"{prefix}.h"
        head.write_text((work / f"{prefix}.h").read_text(encoding="utf-8"), encoding="utf-8")
    return StaticProgram(
        program, obj, head, plan.inputs, plan.outputs, plan.arena_bytes, len(plan.weights)
    )  # fmt: skip


def _thread_flags(plan: MemoryPlan) -> list[str]:
    return ["-pthread"] if plan.threads > 1 else []


def _link(target: Descriptor, threads: list[str], work: Path, obj: Path, program: Path) -> None:
    tools = target.toolchain
    link = [*tools.compiler, *_C_FLAGS, *threads, *tools.link_flags, "-o", str(program.resolve())]
    call_tool([*link, "main.c", str(obj.resolve()), *runtime_sources(target, work)], work)


def runtime_sources(target: Descriptor, folder: Path) -> list[str]:
    """What a program is linked with: the C library's mathematics, or a runtime written to `folder`."""
    if target.toolchain.runtime == LIBC:
        return ["-lm"]
    text = data_file(f"{target.toolchain.runtime.replace('-', '_')}.c")
    (folder / "runtime.c").write_text(text, encoding="utf-8")
    return ["runtime.c"]


def compile_parts(plan: MemoryPlan, prefix: str, target: Descriptor, folder: Path) -> None:
    """Write the sources of a program into `folder` and compile all but its main."""
    _write_sources(plan, prefix, target, folder)
    compiler = [*target.toolchain.compiler]
    call_tool([*compiler, *_C_FLAGS, *_thread_flags(plan), "-c", "calls.c", "-o", "calls.o"], folder)
    call_tool([*compiler, "-c", "weights.s", "-o", "weights.o"], folder)


def _workspace(wanted: dict[str, int], target: Descriptor) -> int:
    """Bytes of scratch memory of the program: the device's scratchpad, where it has one and it is used.

    Raises UnsupportedError where a kernel needs more than that.
    """
    limit = target.memory.scratchpad
    for name, size in wanted.items():
        if limit and size > limit:
            raise UnsupportedError(f"{name} needs {size} bytes of scratchpad, {target.name} has {limit}")
    return limit if limit and wanted else max(wanted.values(), default=0)


def _write_sources(plan: MemoryPlan, prefix: str, target: Descriptor, folder: Path) -> None:
    alignment, device = target.memory.alignment, tvm.target.Target(dict(target.tvm))
    lowered = lower({f"{prefix}_{n}": f for n, f in plan.functions.items()}, device, alignment)
    write_object(lowered, device, folder / "kernels.o")
    workspace = _workspace(workspaces(lowered, alignment), target)
    texts = {
        f"{prefix}.h": header(plan, prefix, target.memory),
        "calls.c": source(plan, prefix, alignment, workspace),
        "main.c": main_program(plan, prefix, target.memory, timed=target.toolchain.runtime == LIBC),
        "weights.s": weights_assembly(prefix, "weights.bin", target.memory),
    }
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    if plan.threads > 1:
        (folder / "claim_pool.c").write_text(data_file("claim_pool.c"), encoding="utf-8")
    (folder / "weights.bin").write_bytes(plan.weights)
