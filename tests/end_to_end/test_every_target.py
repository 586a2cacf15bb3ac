"""The demo for every shipped target: bit-exact where it can be run, and with the instruction it promises."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from integer_targets import INTEGER_TARGETS

from hwptq.targets import load_target


@pytest.mark.parametrize("name", INTEGER_TARGETS)
def test_the_demo_is_bit_exact(name: str, demo: Callable[[str], Any]) -> None:
    model, tools = demo(name), load_target(name).toolchain
    exact = model.report["bit_exact"]
    assert exact["executor"].startswith(" ".join([*tools.run, "(version"]) if tools.run else "native: ")
    assert exact["mismatches"] == 0
    assert exact["values"] >= 10 * exact["samples"] > 0
    (obj,) = model.folder.glob("*.o")
    dump = [*tools.objdump, "-d", "--no-show-raw-insn", str(obj)]
    code = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
    assert not tools.instruction or re.search(rf"\s{re.escape(tools.instruction)}\b", code)
