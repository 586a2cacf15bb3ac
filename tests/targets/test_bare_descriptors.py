"""Descriptors of devices without an operating system: what must be there, and what does not fit together."""

from __future__ import annotations

import pytest
from descriptors import ARM, Refuse, edited

M4 = "arm-cortex-m4"
CASES = {
    "no start": (M4, ('start = "cortex-m"', ""), "toolchain.start: missing"),
    "a start of no use": (ARM, ("[toolchain]", '[toolchain]\nstart = "riscv"'), "toolchain.start: is for"),
    "nowhere for variables": (M4, ('holds = ["data"]', 'holds = ["arena"]'), "none holds data"),
    "two places": (M4, ('holds = ["data"]', 'holds = ["data", "code"]'), "flash and sram both hold code"),
    "overlap": (M4, ("origin = 0x20000000", "origin = 0x3fffff"), "flash and sram overlap"),
    "one name": (M4, ('name = "sram"', 'name = "flash"'), "two are called flash"),
    "unknown content": (M4, ('holds = ["data"]', 'holds = ["dta"]'), "did you mean data?"),
    "run an object": (M4, ('runtime = "bare"', 'runtime = "bare"\nemit = "object"'), "nothing is linked"),
    "big-endian": (ARM, ('"aarch64-linux-gnu"', '"s390x-linux-gnu"'), "s390x is big-endian"),
    "big-endian Arm": (M4, ("thumbv7em-", "thumbebv7em-"), "thumbebv7em is big-endian"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_with_its_reason(case: str, refuse: Refuse) -> None:
    name, edit, reason = CASES[case]
    assert any(reason in line for line in refuse(edited(name, edit), trust=True))
