"""Checks against LLVM: CPU, features, intrinsics and their operand types."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from descriptors import ARM, I8MM, Refuse, edited

from hwptq.targets import load_target
from hwptq.targets.isolate import Crash, isolated

AVX2 = "x86-64-avx2"
SDOT = "llvm.aarch64.neon.sdot.v4i32.v16i8"

#: target, edit, beginning of the expected line
WRONG = {
    "kind": (
        ARM,
        ('kind = "llvm"', 'kind = "lvm"'),
        "tvm.kind: unknown kind of target 'lvm' (did you mean llvm?)",
    ),
    "kind a number": (ARM, ('kind = "llvm"', "kind = 3"), "tvm.kind: unknown kind of target 3"),
    "triple": (
        ARM,
        ('"aarch64-linux', '"aarch46-linux'),
        "tvm.mtriple: LLVM has no architecture of 'aarch46-linux-gnu'",
    ),
    "triple missing": (ARM, ('mtriple = "aarch64-linux-gnu"\n', ""), "tvm.mtriple: missing: the LLVM triple"),
    "triple a number": (ARM, ('"aarch64-linux-gnu"\nm', "3\nm"), "tvm.mtriple: must be a string"),
    "cpu": (
        ARM,
        ("cortex-a76", "cortex-a7s6"),
        "tvm.mcpu: LLVM knows no CPU 'cortex-a7s6' of aarch64-linux-gnu (did you mean cortex-a76?)",
    ),
    "scalable vectors": (
        ARM,
        ("llvm.aarch64.neon.sdot.v4i32.v16i8", "llvm.aarch64.sve.sdot.nxv4i32"),
        "kernel.sdot.intrinsic: llvm.aarch64.sve.sdot.nxv4i32 takes vectors whose length only the device",
    ),
    "cpu of another architecture": (
        ARM,
        ("cortex-a76", "haswell"),
        "tvm.mcpu: LLVM knows no CPU 'haswell' of aarch64-linux-gnu",
    ),
    "feature": (
        ARM,
        ("+dotprod", "+dotpord"),
        "tvm.mattr[0]: LLVM knows no feature 'dotpord' of aarch64-linux-gnu cortex-a76 (did you mean "
        "dotprod?)",
    ),
    "feature without sign": (
        ARM,
        ("+dotprod", "dotprod"),
        'tvm.mattr[0]: must be "+feature" or "-feature", not \'dotprod\'',
    ),
    "matrix operands": (
        I8MM,
        ("smmla.v4i32.v16i8", "smmla.v4i32.v8i8"),
        "kernel.smmla.intrinsic: rows 2, columns 2 and k 8 make operands v4i32, v16i8, v16i8, so "
        "the name ends in .v4i32.v16i8, not .v4i32.v8i8",
    ),
    "no i8mm": (
        I8MM,
        ('"cortex-a710"\nmattr = ["+dotprod", "+i8mm", "+neon"]', '"cortex-a76"\nmattr = ["+dotprod"]'),
        "kernel.smmla.intrinsic: LLVM can't generate llvm.aarch64.neon.smmla.v4i32.v16i8 for aarch64",
    ),
    "features as text": (ARM, ('["+dotprod", "+neon"]', '"+dotprod"'), "tvm.mattr: must be strings"),
    "option": (ARM, ("mattr =", "matr ="), "tvm.matr: unknown key (did you mean mattr?)"),
    "intrinsic": (
        ARM,
        ("neon.sdot.", "neon.sdto."),
        "kernel.sdot.intrinsic: LLVM has no llvm.aarch64.neon.sdto.v4i32.v16i8 (did you mean "
        "llvm.aarch64.neon.sdot?)",
    ),
    "suffix": (
        ARM,
        ("v16i8", "v9i8"),
        "kernel.sdot.intrinsic: lanes 4, k 4, operand_bits 8 and accumulates true make operands v4i32, "
        "v16i8, v16i8, so the name ends in .v4i32.v16i8, not .v4i32.v9i8",
    ),
    "lanes against suffix": (ARM, ("lanes = 4\nk", "lanes = 8\nk"), "kernel.sdot.intrinsic: lanes 8, k 4"),
    "lanes against the device": (
        ARM,
        (f'{SDOT}"\nlanes = 4', 'llvm.aarch64.neon.sdot"\nlanes = 8'),
        "kernel.sdot.intrinsic: LLVM can't generate llvm.aarch64.neon.sdot for aarch64-linux-gnu "
        "cortex-a76: lanes 8",
    ),
    "accumulates": (
        ARM,
        ("by_element = true", "accumulates = false"),
        "kernel.sdot.intrinsic: LLVM's " + SDOT + " has other operands",
    ),
    "feature that the intrinsic needs": (
        ARM,
        ("+dotprod", "-dotprod"),
        "kernel.sdot.intrinsic: LLVM can't generate " + SDOT,
    ),
    "operand types": (
        AVX2,
        ("k = 2\noperand_bits = 16", "k = 4\noperand_bits = 8"),
        "kernel.pmaddwd.intrinsic: LLVM's llvm.x86.avx2.pmadd.wd has other operands",
    ),
    "lanes of a fixed intrinsic": (
        AVX2,
        ("lanes = 8\nk = 2", "lanes = 16\nk = 2"),
        "kernel.pmaddwd.intrinsic: LLVM's llvm.x86.avx2.pmadd.wd has other operands",
    ),
    "intrinsic of another architecture": (
        AVX2,
        ("llvm.x86.avx2.pmadd.wd", "llvm.aarch64.neon.sdot"),
        "kernel.pmaddwd.intrinsic: LLVM",
    ),
    "cpu without the instruction": (
        AVX2,
        ('"haswell"', '"x86-64"'),
        "kernel.pmaddwd.intrinsic: LLVM can't generate llvm.x86.avx2.pmadd.wd for x86_64-linux-gnu x86-64",
    ),
    "registers of a table": (
        ARM,
        ("neon.tbl4", "neon.tbl3"),
        "kernel.tbl.intrinsic: LLVM's llvm.aarch64.neon.tbl3.v16i8 has other operands or another result: "
        "lanes 16 and registers 4 make 5 operands v16i8",
    ),
    "what joins the results": (
        ARM,
        ("neon.tbx4.v16i8", "neon.tbx4.v8i8"),
        "kernel.tbl.joining: lanes 16 and registers 4 make 5 operands v16i8, and one more, so the name",
    ),
    "requantize lanes": (
        ARM,
        ("lanes = 4\nmul", "lanes = 8\nmul"),
        "requantize.multiply_high: lanes 8 make operands v8i32, so the name ends in .v8i32, not .v4i32",
    ),
    "requantize intrinsic": (
        ARM,
        ("neon.srshl", "neon.srsl"),
        "requantize.rounding_shift: LLVM has no llvm.aarch64.neon.srsl.v4i32",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_llvm_does_not_know_it(case: str, refuse: Refuse, capfd: pytest.CaptureFixture[str]) -> None:
    name, edit, expected = WRONG[case]
    lines = refuse(edited(name, edit), trust=True)
    assert any(line.startswith(f"chip.toml: {expected}") for line in lines), lines
    assert capfd.readouterr().err == "", "LLVM's own chatter is not shown"


def test_llvm_and_other_problems_at_once(refuse: Refuse) -> None:
    edits = [WRONG["cpu"][1], WRONG["intrinsic"][1], ("alignment = 64", "alignment = 3")]
    paths = {line.split(": ")[1] for line in refuse(edited(ARM, *edits))}
    assert paths == {"tvm.mcpu", "kernel.sdot.intrinsic", "memory.alignment"}


def test_the_checks_take_less_than_a_second(tmp_path: Path) -> None:
    path = tmp_path / "chip.toml"
    path.write_text(edited(ARM))
    load_target(path)  # imports TVM
    seconds = []
    for _ in range(3):
        start = sum(os.times()[:4])
        load_target(path)
        seconds.append(sum(os.times()[:4]) - start)  # of this process and those it waited for
    assert min(seconds) < 1


def test_isolated_returns_what_the_work_returns() -> None:
    assert isolated(lambda: [["a", "b"] * 50000]) == [["a", "b"] * 50000]


@pytest.mark.parametrize("work", [os.abort, lambda: os._exit(3), lambda: 1 / 0, lambda: time.sleep(60)])
def test_isolated_survives_its_work(work) -> None:
    with pytest.raises(Crash):
        isolated(work, timeout=0.5)
