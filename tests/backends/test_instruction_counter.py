"""Instructions under qemu are counted to the last one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hwptq.backends.static_c.instruction_counter import InstructionCounter
from hwptq.errors import HwptqError, InputError

LOOP = """\
#include <stdlib.h>
__attribute__((noinline)) void work(long n) { for (; n; n--) __asm__ volatile("nop"); }
int main(int count, char **arguments) { return work(atol(arguments[count - 1])), 0; }
"""


def test_instructions_are_counted_exactly_by_function(tmp_path: Path) -> None:
    """A loop of three instructions: nop, subtract, branch."""
    missing = [p for p in ("gcc", "aarch64-linux-gnu-gcc", "qemu-aarch64") if shutil.which(p) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not found on PATH")
    (tmp_path / "loop.c").write_text(LOOP)
    command = ["aarch64-linux-gnu-gcc", "-O1", "-static", "loop.c", "-o", "loop"]
    subprocess.run(command, cwd=tmp_path, check=True)
    counted = InstructionCounter(["qemu-aarch64", "-cpu", "max"], tmp_path)
    few, more = (counted.count([tmp_path / "loop", n], b"") for n in (1000, 4000))
    assert more["work"] - few["work"] == 3 * 3000
    assert more.total() - few.total() == 3 * 3000


def test_a_program_that_fails_is_one_line(tmp_path: Path) -> None:
    if shutil.which("gcc") is None or shutil.which("qemu-aarch64") is None:
        pytest.skip("gcc or qemu-aarch64 not found on PATH")
    counter = InstructionCounter(["qemu-aarch64"], tmp_path)
    with pytest.raises(HwptqError, match="qemu-aarch64 with the plug-in that counts instructions failed"):
        counter.count([tmp_path / "nothing"], b"")


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="install gcc"):
        InstructionCounter(["qemu-aarch64"], tmp_path)
