"""`targets check` runs intrinsics: right ones compute what their tables say, and wrong ones are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from descriptors import edited
from integer_targets import INTEGER_TARGETS

from hwptq.backends.backend import backend_of
from hwptq.backends.try_out import Trial, try_out, values
from hwptq.targets import load_target
from hwptq.targets.llvm_checks import intrinsic_calls
from hwptq.targets.templates.intrinsics import Immediate

SMLAD = """
[kernel.smlad]
template = "dot_product"
intrinsic = "llvm.arm.smlad"
lanes = 1
k = 2
operand_bits = 16
operands_as_int32 = true
"""
_M4_KERNEL = (
    'template = "halfword_pairs"\nintrinsic = "llvm.arm.smlad"\nwiden = "llvm.arm.sxtb16"\n',
    SMLAD.partition("]\n")[2],
)
WRONG = {
    "the accumulator stands last": ("arm-cortex-m4", _M4_KERNEL, "kernel.smlad.intrinsic"),
    "no unsigned activation": (
        "x86-64-vnni",
        ("unsigned_activation = true", "unsigned_activation = false"),
        "kernel.vpdpbusd.intrinsic",
    ),
    "a shift that does not round": (
        "arm-cortex-a",
        ("llvm.aarch64.neon.srshl.v4i32", "llvm.aarch64.neon.sshl.v4i32"),
        "requantize.rounding_shift",
    ),
    "a product that does not round": (
        "arm-cortex-a",
        ("llvm.aarch64.neon.sqrdmulh.v4i32", "llvm.aarch64.neon.sqdmulh.v4i32"),
        "requantize.multiply_high",
    ),
    "a difference": (
        "arm-cortex-m55",
        ("leading = [0, 0, 0]", "leading = [0, 1, 0]"),
        "kernel.vmladava.intrinsic",
    ),
    "crossed halfwords": ("arm-cortex-m4", ("llvm.arm.smlad", "llvm.arm.smladx"), "kernel.smlad.intrinsic"),
}


def trial(text: str, folder: Path) -> Trial:
    path = folder / "chip.toml"
    path.write_text(text)
    target = load_target(path)
    return try_out(target, backend_of(target))


@pytest.mark.parametrize("name", INTEGER_TARGETS)
def test_shipped_ones_compute_what_they_say(name: str, runnable: Callable[[str], str]) -> None:
    target = load_target(runnable(name))
    found = try_out(target, backend_of(target))
    calls = intrinsic_calls({"kernels": target.kernels, "requantize": target.requantize})
    assert found == Trial(tried=sum(call.meaning is not None for call in calls))


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_one_is_found(case: str, runnable: Callable[[str], str], tmp_path: Path) -> None:
    name, edit, key = WRONG[case]
    runnable(name)
    found = trial(edited(name, edit), tmp_path)
    assert key in dict(found.problems)
    assert "does not compute what the table says" in dict(found.problems)[key]


@pytest.mark.parametrize("edit", [(2, Immediate(16, "int32")), (4, Immediate(1, "int32"))])
def test_what_is_in_memory_is_compared_too(
    runnable: Callable[[str], str], edit: tuple[int, Immediate], tmp_path: Path
) -> None:
    """A gather of halfwords, and one without signs, give other values than the table says."""
    target = load_target(runnable("arm-cortex-m55"))
    kernels = {"conv": target.kernels["vmladava"]}
    (call,) = (c for c in intrinsic_calls({"kernels": kernels}) if c.path.endswith(".gather"))
    place, number = edit
    operands = (*call.operands[:place], number, *call.operands[place + 1 :])
    given = values(call)
    given[1] &= ~1  # halfwords stand at even places
    right, wrong = backend_of(target).run_intrinsics(
        [call, replace(call, operands=operands)], [given, given], tmp_path
    )
    assert call.meaning
    np.testing.assert_array_equal(right, call.meaning(*given))
    assert np.any(wrong != right)


def test_the_place_of_the_accumulator_is_data(runnable: Callable[[str], str], tmp_path: Path) -> None:
    name = runnable("arm-cortex-m4")
    old, new = _M4_KERNEL
    found = trial(edited(name, (old, f"{new}accumulator_last = true\n")), tmp_path)
    assert not found.problems


def test_what_cannot_be_linked_is_found(runnable: Callable[[str], str], tmp_path: Path) -> None:
    name = runnable("arm-cortex-m4")
    found = trial(edited(name, ('["-lgcc"]', '["-latomic"]')), tmp_path)
    assert "cannot find -latomic" in dict(found.problems)["toolchain"]
