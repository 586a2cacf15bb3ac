"""A model without the TVM runtime: an object file, its header, one static program, and a shared library."""

from __future__ import annotations

import tempfile
from pathlib import Path

import tvm

from hwptq.backends.identifier import identifier
from hwptq.backends.program import Library, Machine, Program
from hwptq.backends.toolchain import binary_tool, call_tool
from hwptq.errors import UnsupportedError
from hwptq.targets import Descriptor

from .c_source import (
    Workspace,
    data_file,
    header,
    hook_names,
    main_program,
    source,
    weights_assembly,
)
from .memory_plan import MemoryPlan, plan_memory, stays
from .raw_functions import lower, workspaces, write_object

LIBC = "libc"
_C_FLAGS = ("-O2", "-Wall", "-Werror")
#: Of all code, so that the object fits into a library too.
_CODE_FLAGS = (*_C_FLAGS, "-fPIC")


def build_program(
    mod: tvm.IRModule, output_names: tuple[str, ...], name: str, target: Descriptor, folder: Path,
    library: bool = False,
) -> Program:  # fmt: skip
    """Build <name>, <name>.o and <name>.h in `folder`, and lib<name>.so where the target has a C library and
    `library` asks for it."""
    prefix, tools = identifier(name), target.toolchain
    device = tvm.target.Target(dict(target.tvm))
    with device:
        plan = plan_memory(mod, output_names, target.memory.alignment)
    with tempfile.TemporaryDirectory(prefix="hwptq-") as scratch:
        work = Path(scratch)
        workspace = compile_parts(plan, prefix, target, work)
        obj, program = folder / f"{prefix}.o", folder / prefix
        call_tool(
            [
                *tools.compiler,
                "-r",
                "-nostdlib",
                "-o",
                str(obj.resolve()),
                "kernels.o",
                "calls.o",
                "weights.o",
            ],
            work,
        )
        _link(target, _thread_flags(plan), work, obj, program)
        shared = (
            _library(plan, prefix, target, workspace, folder) if library and tools.runtime == LIBC else None
        )
        head = folder / f"{prefix}.h"
        head.write_text((work / f"{prefix}.h").read_text(encoding="utf-8"), encoding="utf-8")
    return Program(
        program, plan.inputs, plan.outputs, _machine(target), tools.run, obj, head, shared,
        plan.arena_bytes, len(plan.weights), tuple(call.function for call in plan.calls), stays(plan),
    )  # fmt: skip


def _machine(target: Descriptor) -> Machine:
    triple = str(target.tvm.get("mtriple", ""))
    return Machine(triple.partition("-")[0], target.toolchain.cpu_features)


def _thread_flags(plan: MemoryPlan) -> list[str]:
    return ["-pthread"] if plan.threads > 1 else []


def _link(target: Descriptor, threads: list[str], work: Path, obj: Path, program: Path) -> None:
    tools = target.toolchain
    link = [*tools.compiler, *_C_FLAGS, *threads, *tools.link_flags, "-o", str(program.resolve())]
    call_tool([*link, "main.c", str(obj.resolve()), *runtime_sources(target, work)], work)


def _library(
    plan: MemoryPlan, prefix: str, target: Descriptor, workspace: Workspace, folder: Path
) -> Library:  # fmt: skip
    """Link lib<prefix>.so from the object; it shows the functions of the header only."""
    file, memory = f"lib{prefix}.so", target.memory
    with tempfile.TemporaryDirectory(prefix="hwptq-") as scratch:
        names = Path(scratch) / "names"
        names.write_text(f"{{ global: {prefix}_run; {prefix}_threads; local: *; }};\n", encoding="utf-8")
        link = [*target.toolchain.compiler, "-shared", *_thread_flags(plan), "-o", file]
        call_tool([*link, f"{prefix}.o", f"-Wl,--version-script={names}", "-lm"], folder)
    arena = workspace.arena_bytes(plan, memory)
    return Library(folder / file, f"{prefix}_run", arena, memory.alignment, memory.readable_behind)


def runtime_sources(target: Descriptor, folder: Path) -> list[str]:
    """What a program is linked with: the C library's mathematics, or a runtime written to `folder`."""
    if target.toolchain.runtime == LIBC:
        return ["-lm"]
    text = data_file(f"{target.toolchain.runtime.replace('-', '_')}.c")
    (folder / "runtime.c").write_text(text, encoding="utf-8")
    return ["runtime.c"]


def compile_parts(
    plan: MemoryPlan, prefix: str, target: Descriptor, folder: Path, clocked: bool = False
) -> Workspace:
    """Write the sources of a program into `folder` and compile all but its main. clocked: see source."""
    workspace = _write_sources(plan, prefix, target, folder, clocked)
    compiler = [*target.toolchain.compiler]
    call_tool([*compiler, *_CODE_FLAGS, *_thread_flags(plan), "-c", "calls.c", "-o", "calls.o"], folder)
    call_tool([*compiler, "-c", "weights.s", "-o", "weights.o"], folder)
    rename_hooks(target, prefix, folder)
    return workspace


def rename_hooks(target: Descriptor, prefix: str, folder: Path) -> None:
    """Give the pointers that TVM's code in kernels.o looks for the model's own names."""
    renamed = [f"--redefine-sym={name}={own}" for name, own in hook_names(prefix).items()]
    call_tool([binary_tool(target.toolchain.compiler, "objcopy"), *renamed, "kernels.o"], folder)


def _workspace(wanted: dict[str, int], target: Descriptor) -> Workspace:
    """Scratch memory of the program: the device's scratchpad, where it has one and it is used.

    Raises UnsupportedError where a kernel needs more than that.
    """
    limit = target.memory.scratchpad
    for name, size in wanted.items():
        if limit and size > limit:
            raise UnsupportedError(f"{name} needs {size} bytes of scratchpad, {target.name} has {limit}")
    size = limit if limit and wanted else max(wanted.values(), default=0)
    return Workspace(size, target.memory.alignment, in_arena=target.toolchain.runtime == LIBC)


def _write_sources(
    plan: MemoryPlan, prefix: str, target: Descriptor, folder: Path, clocked: bool
) -> Workspace:
    alignment, device = target.memory.alignment, tvm.target.Target(dict(target.tvm))
    lowered = lower({f"{prefix}_{n}": f for n, f in plan.functions.items()}, device, alignment)
    write_object(lowered, device, folder / "kernels.o")
    workspace = _workspace(workspaces(lowered, alignment), target)
    texts = {
        f"{prefix}.h": header(plan, prefix, target.memory, workspace, target.toolchain.state_component),
        "calls.c": source(plan, prefix, workspace, target.toolchain.state_component, clocked),
        "main.c": main_program(plan, prefix, target.memory, timed=target.toolchain.runtime == LIBC),
        "weights.s": weights_assembly(prefix, "weights.bin", target.memory),
    }
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    if plan.threads > 1:
        (folder / "claim_pool.c").write_text(data_file("claim_pool.c"), encoding="utf-8")
    (folder / "weights.bin").write_bytes(plan.weights)
    return workspace
