"""Memory of a device without an operating system: what a program takes of it, and models that do not fit."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from onnx_models import model, node, normal
from real_models import MODELS

import hwptq
from hwptq.backends.toolchain import binary_tool
from hwptq.errors import BudgetError, UnsupportedError
from hwptq.targets import load_target

M4 = "arm-cortex-m4"
REGIONS = """\
schema = 1
name = "chip"
extends = "arm-cortex-m4"
[memory]
stack = 4096
regions = [
    {{ name = "flash", origin = 0, bytes = {flash}, holds = ["code", "constants"] }},
    {{ name = "sram", origin = 0x20000000, bytes = {sram}, holds = ["data"] }},
]
"""
TOO_LARGE = {
    "activations": (
        65536,
        6144,
        r"activations take \d+ bytes, and sram .*6144 .*: stage\d/.* needs most",
    ),
    "weights": (8192, 65536, r"weights take \d+ bytes, and flash .* has 8192: stage\d/.* alone has \d+"),
}


def test_the_report_says_what_is_used(demo: Callable[[str], Any], tmp_path: Path) -> None:
    """All of the weights, the arena and the stack are counted, little else, and no byte of a debugger's."""
    model, memory = demo(M4), load_target(M4).memory
    flash, sram = model.report["regions"]
    weights, arena = model.report["weight_bytes"]["quantized"], model.report["arena_bytes"]
    assert (flash["name"], flash["size"]) == ("flash", memory.regions[0].bytes)
    assert weights < flash["used"] < weights + 12_000
    copy = ["arm-none-eabi-objcopy", "-O", "binary", model.program.command[-1], str(tmp_path / "image")]
    subprocess.run(copy, check=True)
    assert 0 <= (tmp_path / "image").stat().st_size - flash["used"] < memory.alignment
    assert memory.stack + arena < sram["used"] < memory.stack + arena + 2000


@pytest.mark.parametrize("name", ["arm-cortex-m4", "riscv32-imc"])
def test_only_what_is_called_takes_flash(name: str, demo: Callable[[str], Any]) -> None:
    """TVM's functions for float16 are neither in the program nor in the object."""
    folder, tools = demo(name).folder, load_target(name).toolchain
    shown = [binary_tool(tools.compiler, "nm"), str(folder / "digits.o")]
    names = subprocess.run(shown, check=True, capture_output=True, text=True).stdout
    assert "digits_run" in names
    assert "hfsf2" not in names
    shown[-1] = demo(name).program.command[-1]
    names = subprocess.run(shown, check=True, capture_output=True, text=True).stdout
    assert "digits_run" in names
    assert "hfsf2" not in names
    assert "sqrtf" not in names


def test_activations_lie_in_a_region_of_their_own(demo: Callable[[str], Any]) -> None:
    model = demo("arm-cortex-m55")
    used = {row["name"]: row["used"] for row in model.report["regions"]}
    assert model.report["arena_bytes"] <= used["sram"] < model.report["arena_bytes"] + 64
    assert used["dtcm"] < load_target("arm-cortex-m55").memory.stack + 2000


@pytest.mark.parametrize("what", TOO_LARGE)
def test_what_does_not_fit_is_refused_with_its_layer(
    what: str, runnable: Callable[[str], str], tmp_path: Path
) -> None:
    runnable(M4)
    flash, sram, message = TOO_LARGE[what]
    chip = tmp_path / "chip.toml"
    chip.write_text(REGIONS.format(flash=flash, sram=sram))
    with pytest.raises(UnsupportedError, match=message):
        hwptq.compile(**MODELS["demo"].arguments(8, 2), target=chip, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_budget_for_activations(runnable: Callable[[str], str], tmp_path: Path) -> None:
    arguments, output = MODELS["demo"].arguments(8, 2), tmp_path / "out"
    with pytest.raises(BudgetError, match=r"arena=900B: activations take \d+ bytes; stage\d/.* needs most"):
        hwptq.compile(**arguments, target=runnable(M4), output=output, budget="arena=900B")


def test_a_model_that_would_not_fit_runs_in_bands(runnable: Callable[[str], str], tmp_path: Path) -> None:
    proto = model(
        [
            node("Conv", "x w", "wide", "wide", pads=[1, 1, 1, 1]),
            node("Conv", "wide v", "y", "narrow", strides=[2, 2], pads=[1, 1, 1, 1]),
        ],
        {"x": [1, 3, 24, 20]},
        {"w": normal(0, 32, 3, 3, 3), "v": normal(1, 4, 32, 3, 3)},
    )
    report = hwptq.compile(
        proto, runnable(M4), [{"x": normal(s, 1, 3, 24, 20)} for s in range(2)], output=tmp_path / "out",
        budget="arena=8kB",
    ).report  # fmt: skip
    assert report["memory"]["arena_least_bytes"] <= report["arena_bytes"] <= 8000 < 24 * 20 * 32
    assert (report["bit_exact"]["samples"], report["bit_exact"]["mismatches"]) == (2, 0)
    (band,) = report["bands"]
    assert (band["first"], band["last"]) == ("wide", "narrow")
    assert band["bands"] > 1
    assert band["extra_macs"] > 0
