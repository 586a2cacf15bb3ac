"""What a user is told of a compiler or a linker that failed: the cause, not the driver's last line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hwptq.backends.toolchain import call_tool
from hwptq.errors import HwptqError

SAID = {
    "what nothing defines": (
        "ld: main.o: in function `main':\nmain.c:(.text+0x1c): undefined reference to `__floatsisf'\n"
        "main.c:(.text+0x2c): undefined reference to `sinf'\nmain.c: undefined reference to `sinf'\n"
        "collect2: error: ld returned 1 exit status\n",
        "nothing defines __floatsisf, sinf",
    ),
    "lld's form of it": (
        "ld.lld: error: undefined symbol: erff\n>>> referenced by main.o\n"
        "clang: error: linker command failed with exit code 1 (use -v to see invocation)\n",
        "nothing defines erff",
    ),
    "memory that is full": (
        "/usr/bin/ld: program section `.rodata' will not fit in region `flash'\n"
        "/usr/bin/ld: region `flash' overflowed by 288 bytes\ncollect2: error: ld returned 1 exit status\n",
        "will not fit in region `flash'",
    ),
    "a library that is not there": (
        "/usr/bin/ld: cannot find -lfoo: No such file\ncollect2: error: ld returned 1 exit status\n",
        "cannot find -lfoo",
    ),
    "an instruction": (
        "start.c: Assembler messages:\nstart.c:12: Error: unrecognized opcode `csrw mtvec,t0'\n",
        "unrecognized opcode",
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_the_cause_is_shown(case: str, tmp_path: Path) -> None:
    said, cause = SAID[case]
    script = f"import sys; sys.stderr.write({said!r}); sys.exit(1)"
    with pytest.raises(HwptqError, match="failed with status 1: ") as caught:
        call_tool([sys.executable, "-c", script], tmp_path)
    assert cause in str(caught.value)
    assert "collect2" not in str(caught.value)
