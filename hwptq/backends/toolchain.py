"""The programs that a descriptor names: compilers, emulators. Found early, run as argument lists."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from hwptq.disk import fullest, tells_of_full
from hwptq.errors import HwptqError, InputError

_UNDEFINED = re.compile(r"undefined (?:reference to [`'](.+?)'|symbol: (\S+))")
_SUMMARY = re.compile(r"collect2: error|linker command failed|Assembler messages:$|: in function ")
_REASON = re.compile(r"[Ee]rror|cannot |can't |overflowed|will not fit|unrecognized|unknown")


def find_program(name: str) -> str | None:
    """The path of a program: on PATH, or among those that NVIDIA's Python packages bring."""
    return shutil.which(name, path=call_environment()["PATH"])


def call_environment() -> dict[str, str]:
    """The environment with the programs of NVIDIA's Python packages at the end of PATH."""
    folders = [str(folder) for entry in sys.path for folder in Path(entry).glob("nvidia/cu*/bin")]
    return {**os.environ, "PATH": os.pathsep.join([os.environ.get("PATH", ""), *folders])}


def call_tool(command: Sequence[str], folder: Path) -> None:
    """Run a compiler or linker in `folder`.

    Raises HwptqError with its first line where it fails, InputError where the disk is full.
    """
    done = subprocess.run(list(command), cwd=folder, capture_output=True, text=True, check=False)
    if not done.returncode:
        return
    said = done.stderr or done.stdout
    places = [folder, *(Path(word).parent for word in command if word.startswith("/"))]
    if tells_of_full(said, places):
        raise InputError(f"{fullest(places)}: the disk is full")
    raise HwptqError(f"{command[0]} failed with status {done.returncode}: {_cause(said)}")


def _cause(said: str) -> str:
    """What went wrong, of all that a compiler or a linker said: its reason, not the driver's summary."""
    missing = dict.fromkeys(a or b for a, b in _UNDEFINED.findall(said))
    if missing:
        return f"nothing defines {', '.join(missing)}"
    lines = [line for line in said.splitlines() if line.strip()]
    own = [line for line in lines if not _SUMMARY.search(line) and "warning:" not in line] or lines
    return next((line for line in own if _REASON.search(line)), own[0] if own else "no message")


@cache
def compiler_version(program: str) -> str:
    """What a compiler says of itself; "" where it says nothing."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return done.stdout


def binary_tool(compiler: Sequence[str], name: str) -> str:
    """The path of a tool that belongs to a compiler, such as objcopy: LLVM's, which knows all
    processors, else the compiler's own.

    Raises HwptqError where there is none.
    """
    for wanted in (f"llvm-{name}", name):
        command = [*compiler, f"-print-prog-name={wanted}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = shutil.which(done.stdout.strip()) if done.stdout.strip() else None
        if found:
            return found
    raise HwptqError(f"{compiler[0]} has no {name}; install the binutils (or llvm) that go with it")
