"""Counting the instructions that a program executes under qemu's emulation of another processor."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hwptq.backends.toolchain import call_tool
from hwptq.errors import HwptqError, InputError

from .c_source import data_file


def counts_under(emulator: Sequence[str]) -> bool:
    """Whether it is one that takes the plug-in: QEMU, be it of a process or of a board."""
    return bool(emulator) and emulator[0].startswith("qemu-")


class InstructionCounter:
    """An emulator, such as ("qemu-aarch64", "-cpu", "max"), with a plug-in that is built in `folder`.

    Raises InputError where this machine has no compiler for it.
    """

    def __init__(self, emulator: Sequence[str], folder: Path):
        self.emulator, self.folder = list(emulator), folder
        self.plugin = folder / "count_instructions.so"
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            raise InputError(
                "counting instructions under qemu needs a C compiler for this machine: install gcc"
            )
        (folder / "count_instructions.c").write_text(data_file("count_instructions.c"), encoding="utf-8")
        flags = ["-O2", "-Wall", "-shared", "-fPIC"]
        call_tool([compiler, *flags, "count_instructions.c", "-o", str(self.plugin.resolve())], folder)

    def count(self, command: Sequence[object], data: bytes) -> Counter[str]:
        """Instructions by function when `command` runs on `data` as its standard input.

        Raises HwptqError where it fails, or the emulator takes no plug-ins.
        """
        file = (self.folder / "counts.txt").resolve()
        file.unlink(missing_ok=True)
        program, *options = self.emulator
        plugin = ["-plugin", f"{self.plugin.resolve()},out={file}"]
        line = [program, *plugin, *options, *map(str, command)]
        done = subprocess.run(line, input=data, capture_output=True, check=False)
        if done.returncode or not file.exists():
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise HwptqError(
                f"{program} with the plug-in that counts instructions failed with status {done.returncode}"
                + (f": {said[-1]}" if said else "")
            )
        rows = (row.split(maxsplit=1) for row in file.read_text(encoding="utf-8").splitlines())
        return Counter({name: int(count) for count, name in rows})
