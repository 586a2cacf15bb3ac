"""What programs stand on: a C library, or files of this package; and how they are linked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from hwptq.backends.toolchain import call_tool
from hwptq.targets import Descriptor
from hwptq.targets.memory import Memory

from .c_source import data_file

LIBC = "libc"
_NO_LIBRARY = ("-nostdlib", "-ffreestanding", "-fno-builtin")
_SCRIPT = "memory.ld"
#: Leave out what nobody calls, such as the functions for float16 that TVM adds to each object.
_SPARING = ("-ffunction-sections", "-Wl,--gc-sections")


@dataclass(frozen=True)
class Runtime:
    """files: C sources of this package. flags: of the linker. launcher: the ending of a program that starts
    the one that is linked; "" = it starts by itself."""

    files: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    launcher: str = ""
    sparing: bool = False  # whether what nobody calls is left out
    shared: bool = False  # whether its objects may become part of a shared library


_RUNTIMES = {
    LIBC: Runtime(flags=("-lm",), shared=True),
    "hexagon-linux": Runtime(("hexagon_linux.c", "freestanding.c"), shared=True),
    "bare": Runtime(
        ("bare.c", "freestanding.c", "fused.c"), (*_NO_LIBRARY, f"-Wl,-T,{_SCRIPT}"), sparing=True
    ),
    "wasi": Runtime(("wasi.c", "freestanding.c", "fused.c"), _NO_LIBRARY, ".mjs"),
}

RUNTIMES = tuple(_RUNTIMES)


def runtime_of(target: Descriptor) -> Runtime:
    """The runtime that a descriptor names."""
    return _RUNTIMES[target.toolchain.runtime]


def link_program(target: Descriptor, sources: Sequence[str], program: Path, folder: Path) -> None:
    """Compile and link `sources`, in `folder`, with the runtime of a target: a program without a launcher.

    Flags of the descriptor come last, where a linker looks for what is still missing.
    Raises HwptqError where a tool fails.
    """
    tools, runtime = target.toolchain, runtime_of(target)
    files = [*runtime.files, *([f"start_{tools.start.replace('-', '_')}.c"] if tools.start else [])]
    for file in files:
        (folder / file).write_text(data_file(file), encoding="utf-8")
    if tools.runtime == "bare":
        (folder / _SCRIPT).write_text(linker_script(target.memory), encoding="utf-8")
    sparing = _SPARING if runtime.sparing else ()
    command = [*tools.compiler, "-O2", *sparing, *sources, *files, *runtime.flags, *tools.link_flags]
    call_tool([*command, "-o", str(program.resolve())], folder)


def object_flags(target: Descriptor, names: Sequence[str]) -> tuple[str, ...]:
    """Flags for a linker that makes one object of several, whose functions `names` somebody will call."""
    wanted = tuple(f"-Wl,-u,{name}" for name in names)
    return (*_SPARING, *wanted) if runtime_of(target).sparing else ()


def started_by(target: Descriptor, program: Path) -> Path:
    """What is run, perhaps by an emulator: the program, or its launcher, written beside it."""
    ending = runtime_of(target).launcher
    if not ending:
        return program
    launcher = program.with_name(f"{program.stem}{ending}")
    text = Template(data_file(f"{target.toolchain.runtime}{ending}.in"))
    launcher.write_text(text.substitute(module=program.name, launcher=launcher.name), encoding="utf-8")
    return launcher


def linker_script(memory: Memory) -> str:
    """GNU ld's script for a program of runtime "bare": what goes into which region of memory."""
    regions = "\n".join(
        f"    {region.name} (rwx) : ORIGIN = {region.origin:#x}, LENGTH = {region.bytes:#x}"
        for region in memory.regions
    )
    places = {what: region.name for region in memory.regions for what in region.holds}
    places.setdefault("arena", places["data"])
    return Template(data_file("bare.ld.in")).substitute(
        places, regions=regions, alignment=memory.alignment, stack=memory.stack
    )
