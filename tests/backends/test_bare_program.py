"""Programs without an operating system: how they are laid out, and what remains where one can't be linked."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from real_models import MODELS

import hwptq
from hwptq.backends.static_c.runtime import link_program, linker_script
from hwptq.errors import HwptqError, InputError
from hwptq.targets import load_target
from hwptq.targets.memory import Memory, Region

M4 = "arm-cortex-m4"
CHILD = 'schema = 1\nname = "chip"\nextends = "arm-cortex-m4"\n[toolchain]\n'
ECHO = """\
#include <stddef.h>
long read(int, void *, size_t);
long write(int, const void *, size_t);
static unsigned char bytes[1000];
static int count = 7; /* comes from flash */
int main(void) {
    for (long got; (got = read(0, bytes, sizeof bytes)) > 0;) write(1, bytes, (size_t)got);
    return count;
}
"""
FAULTS = {
    "an instruction that is not there": ('__asm__ volatile(".inst.n 0xde00")', 132, b"Illegal instruction"),
    "memory that is not there": ("*(volatile int *)0xa0000000", 139, b"memory that is not there"),
}


def run(source: str, folder: Path, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    target = load_target(M4)
    (folder / "main.c").write_text(source)
    link_program(target, ["main.c"], folder / "program", folder)
    command = [*target.toolchain.run, str(folder / "program")]
    return subprocess.run(command, input=data, capture_output=True, check=False, timeout=60)


def test_input_output_and_status(runnable: Callable[[str], str], tmp_path: Path) -> None:
    runnable(M4)
    data = np.random.default_rng(0).integers(0, 256, 100_001, np.uint8).tobytes()
    done = run(ECHO, tmp_path, data)
    assert (done.returncode, done.stdout) == (7, data)


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_ends_the_program(case: str, runnable: Callable[[str], str], tmp_path: Path) -> None:
    runnable(M4)
    statement, status, said = FAULTS[case]
    done = run(f"int main(void) {{ {statement}; return 0; }}", tmp_path)
    assert done.returncode == status
    assert said in done.stderr


def test_tables_of_unwinding_link_no_unwinder(runnable: Callable[[str], str], tmp_path: Path) -> None:
    """What LLVM writes beside functions that call others: its unwinder asks for an abort and tables."""
    runnable(M4)
    named = '__asm__ volatile(".reloc ., R_ARM_NONE, __aeabi_unwind_cpp_pr0")'
    assert run(f"int main(void) {{ {named}; return 5; }}", tmp_path).returncode == 5


def test_regions_hold_what_they_are_named_for() -> None:
    memory = Memory(
        16,
        stack=512,
        regions=(
            Region("flash", 0, 1024, ("code", "constants")),
            Region("ram", 0x20000000, 512, ("data",)),
            Region("tcm", 0x10000000, 256, ("arena",)),
        ),
    )
    script = linker_script(memory)
    assert "ram (rwx) : ORIGIN = 0x20000000, LENGTH = 0x200" in script
    assert "} > ram AT > flash" in script
    assert "*(.bss.arena) } > tcm" in script
    alone = linker_script(replace(memory, regions=memory.regions[:2]))
    assert "*(.bss.arena) } > ram" in alone


def test_an_object_alone(runnable: Callable[[str], str], tmp_path: Path) -> None:
    runnable(M4)
    chip = tmp_path / "chip.toml"
    chip.write_text(CHILD + 'emit = "object"\nrun = []\n')
    model = hwptq.compile(**MODELS["demo"].arguments(8, 2), target=chip, output=tmp_path / "out")
    assert {"digits.o", "digits.h"} <= {path.name for path in model.folder.iterdir()}
    assert not (model.folder / "digits").exists()
    assert "nothing is linked" in model.report["bit_exact"]["executor"]
    with pytest.raises(InputError, match="there is no program to run"):
        model.run({})


def test_the_object_remains_where_nothing_can_be_linked(
    runnable: Callable[[str], str], tmp_path: Path
) -> None:
    runnable(M4)
    chip = tmp_path / "chip.toml"
    chip.write_text(CHILD + 'link_flags = ["-latomic"]\n')
    arguments = MODELS["demo"].arguments(8, 2)
    with pytest.raises(HwptqError, match=r"cannot find -latomic.*digits.o and its header are in"):
        hwptq.compile(**arguments, target=chip, output=tmp_path / "out")
    assert {"digits.o", "digits.h", "report.json"} <= {path.name for path in (tmp_path / "out").iterdir()}
