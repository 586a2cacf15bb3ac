"""A model without the TVM runtime: an object file, its header, one static program, and a shared library."""

from __future__ import annotations

import tempfile
from pathlib import Path

import tvm

from hwptq.backends.identifier import identifier
from hwptq.backends.program import Library, Machine, Program, Prompt
from hwptq.backends.toolchain import call_tool
from hwptq.cache.cache import Cache
from hwptq.errors import HwptqError, InputError, UnsupportedError
from hwptq.targets import Descriptor

from .c_source import (
    Workspace,
    data_file,
    entry,
    header,
    main_program,
    prompt_name,
    reset_name,
    shown_names,
    source,
)
from .data_assembly import data_assembly
from .footprint import check_fits, region_uses
from .header_parts import sizes_of_prompt
from .hooks import rename_launch, take_name
from .kernel_objects import join_objects, kernel_files, write_kernels
from .memory_plan import MemoryPlan, plan_memory
from .runtime import LIBC, link_program, object_flags, runtime_of, started_by
from .shared_library import MOST_CONSTANTS, Compiled, build_library

#: Why there is no program of a target that emits objects.
OBJECT_ONLY = 'toolchain.emit is "object": nothing is linked'
_C_FLAGS = ("-O2", "-Wall", "-Werror")


def build_program(
    mod: tvm.IRModule, output_names: tuple[str, ...], name: str, target: Descriptor, folder: Path,
    deliver: bool = False, cache: Cache | None = None, prompt: tvm.IRModule | None = None,
) -> Program:  # fmt: skip
    """Build <name>, <name>.o and <name>.h in `folder`.

    deliver: what a user gets, that is lib<name>.so and model.so too where the target has them, and the object
    also where the program can't be linked. cache: of kernels that were compiled before. prompt: see
    Backend.build; model.so has steps alone.
    """
    prefix, tools = identifier(name), target.toolchain
    device = tvm.target.Target(dict(target.tvm))
    with device:
        plan = plan_memory(mod, output_names, target.memory.alignment, prompt)
    with tempfile.TemporaryDirectory(prefix="hwptq-") as scratch:
        work = Path(scratch)
        workspace = compile_parts(plan, prefix, target, work, cache=cache)
        check_fits(plan, workspace, mod, target)
        obj, head = folder / f"{prefix}.o", folder / f"{prefix}.h"
        parts = ["kernels.o", "calls.o", "weights.o"]
        join_objects(target, obj, parts, work, object_flags(target, shown_names(plan, prefix)))
        head.write_text((work / head.name).read_text(encoding="utf-8"), encoding="utf-8")
        sources = [*_C_FLAGS, *_thread_flags(plan), "main.c", str(obj.resolve())]
        program, why_none = _linked(target, sources, folder / prefix, work, deliver)
        regions = region_uses(target, folder / prefix) if program else ()
        shared = (
            _library(plan, prefix, target, workspace, folder) if deliver and tools.runtime == LIBC else None
        )
        library = deliver and tools.model_library
        if library and plan.weights.nbytes <= MOST_CONSTANTS:
            ready = _compiled(mod, plan, prefix, work)
            build_library(mod, target, folder / "model.so", cache, ready)
    return Program(
        program, plan.inputs, plan.outputs, machine_of(target), tools.run, obj, head, shared,
        plan.arena_bytes, plan.state, plan.weights.nbytes, tuple(call.function for call in plan.calls),
        plan.stays, regions, why_none, bool(why_none) and why_none != OBJECT_ONLY, plan.least_bytes,
        _prompt(plan), library and plan.weights.nbytes > MOST_CONSTANTS,
    )  # fmt: skip


def _prompt(plan: MemoryPlan) -> Prompt | None:
    if plan.prompt is None:
        return None
    tokens, count = sizes_of_prompt(plan.prompt)
    return Prompt(tokens, plan.prompt.inputs, count)


def _compiled(mod: tvm.IRModule, plan: MemoryPlan, prefix: str, folder: Path) -> dict[str, Compiled]:
    """The kernels in `folder` that are functions of the module as they are, by name.

    Without those that take threads or scratch memory, both of which are the program's own.
    """
    if plan.threads > 1:
        return {}
    given = {gv.name_hint: func for gv, func in mod.functions.items()}
    scratch = take_name(prefix).encode()  # in the table of names of an object that calls it
    files = [folder / file for file in kernel_files(len(plan.functions))]
    return {
        name: Compiled(f"{prefix}_{name}", file)
        for (name, func), file in zip(plan.functions.items(), files, strict=True)
        if name in given and func.same_as(given[name]) and scratch not in file.read_bytes()
    }


def _linked(
    target: Descriptor, sources: list[str], program: Path, work: Path, deliver: bool
) -> tuple[Path | None, str]:
    """The program, or why there is none. Raises HwptqError where it can't be linked and isn't delivered."""
    if target.toolchain.emit == "object":
        return None, OBJECT_ONLY
    try:
        link_program(target, sources, program, work)
    except InputError:  # a full disk
        raise
    except HwptqError as error:
        if not deliver:
            raise
        return None, str(error)
    return started_by(target, program), ""


def machine_of(target: Descriptor) -> Machine:
    """What its programs need of a machine."""
    triple = str(target.tvm.get("mtriple", ""))
    return Machine(triple.partition("-")[0], target.toolchain.cpu_features)


def _thread_flags(plan: MemoryPlan) -> list[str]:
    return ["-pthread"] if plan.threads > 1 else []


def _library(
    plan: MemoryPlan, prefix: str, target: Descriptor, workspace: Workspace, folder: Path
) -> Library:  # fmt: skip
    """Link lib<prefix>.so from the object; it shows the functions of the header only."""
    file, memory = f"lib{prefix}.so", target.memory
    with tempfile.TemporaryDirectory(prefix="hwptq-") as scratch:
        names = Path(scratch) / "names"
        shown = [*shown_names(plan, prefix), f"{prefix}_threads"]
        names.write_text(f"{{ global: {'; '.join(shown)}; local: *; }};\n", encoding="utf-8")
        link = [*target.toolchain.compiler, "-shared", *_thread_flags(plan), "-o", file]
        call_tool([*link, f"{prefix}.o", f"-Wl,--version-script={names}", "-lm"], folder)
    arena = workspace.arena_bytes(plan, memory)
    return Library(
        folder / file, entry(plan, prefix), arena, memory.alignment, memory.readable_behind,
        reset_name(plan, prefix), prompt_name(plan, prefix),
    )  # fmt: skip


def compile_parts(
    plan: MemoryPlan, prefix: str, target: Descriptor, folder: Path, clocked: bool = False,
    cache: Cache | None = None,
) -> Workspace:  # fmt: skip
    """Write the sources of a program into `folder` and compile all but its main. clocked: see source."""
    workspace = _write_sources(plan, prefix, target, folder, clocked, cache or Cache())
    compiler = [*target.toolchain.compiler]
    flags = [*_C_FLAGS, *_thread_flags(plan), *(["-fPIC"] if runtime_of(target).shared else [])]
    call_tool([*compiler, *flags, "-c", "calls.c", "-o", "calls.o"], folder)
    call_tool([*compiler, "-c", "weights.s", "-o", "weights.o"], folder)
    if plan.threads > 1:
        rename_launch(target, prefix, folder)
    return workspace


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
    plan: MemoryPlan, prefix: str, target: Descriptor, folder: Path, clocked: bool, cache: Cache
) -> Workspace:
    functions = {f"{prefix}_{n}": f for n, f in plan.functions.items()}
    workspace = _workspace(write_kernels(functions, prefix, target, folder, cache), target)
    texts = {
        f"{prefix}.h": header(plan, prefix, target.memory, workspace, target.toolchain.state_component),
        "calls.c": source(plan, prefix, workspace, target.toolchain.state_component, clocked),
        "main.c": main_program(plan, prefix, target.memory, timed=target.toolchain.runtime == LIBC),
        "weights.s": data_assembly(f"{prefix}_weights", "weights.bin", target),
    }
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    if plan.threads > 1:
        (folder / "claim_pool.c").write_text(data_file("claim_pool.c"), encoding="utf-8")
    plan.weights.write(folder / "weights.bin")
    return workspace
