"""The instruction counter that benchmarks/instructions.py relies on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
LOOP = """\
#include <stdlib.h>
__attribute__((noinline)) void work(long n) { for (; n; n--) __asm__ volatile("nop"); }
int main(int count, char **arguments) { return work(atol(arguments[count - 1])), 0; }
"""


@pytest.fixture
def emulated(monkeypatch):
    missing = [p for p in ("gcc", "aarch64-linux-gnu-gcc", "qemu-aarch64") if shutil.which(p) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not found on PATH")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import emulated

    yield emulated
    sys.modules.pop("emulated")


def test_instructions_are_counted_exactly_by_function(emulated, tmp_path: Path):
    """A loop of three instructions: nop, subtract, branch."""
    (tmp_path / "loop.c").write_text(LOOP)
    command = ["aarch64-linux-gnu-gcc", "-O1", "-static", "loop.c", "-o", "loop"]
    subprocess.run(command, cwd=tmp_path, check=True)
    counted = emulated.Counted(["qemu-aarch64", "-cpu", "max"], tmp_path)
    few, more = (counted.count([tmp_path / "loop", n], b"") for n in (1000, 4000))
    assert more["work"] - few["work"] == 3 * 3000
    assert more.total() - few.total() == 3 * 3000
