"""w8a16 from end to end: bit-exact on every target that computes in integers, and closer to float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from real_models import MODELS, RealModel

import hwptq

DEMO = MODELS["demo"]


def _report(model: RealModel, target: str, precision: str, folder: Path, calibration: int) -> Any:
    options = hwptq.Options(precision=precision)
    arguments = model.arguments(calibration, 6)
    return hwptq.compile(**arguments, target=target, output=folder / precision, options=options).report


@pytest.mark.parametrize("name", ["x86-64-vnni", "arm-cortex-a", "riscv64-rvv", "hexagon-v66-npu"])
def test_the_demo_is_bit_exact(name: str, runnable: Callable[[str], str], tmp_path: Path) -> None:
    report = _report(DEMO, runnable(name), "w8a16", tmp_path, 16)
    assert report["bit_exact"]["values"] == 60
    assert report["bit_exact"]["mismatches"] == 0
    assert {(row["activation"], row["weight"]) for row in report["bits"]} == {("int16", "int8")}
    assert report["coverage"]["nodes_float"] == []


@pytest.mark.parametrize("name", ["demo", "tiny-kws"])
def test_more_of_the_signal_is_left(name: str, runnable: Callable[[str], str], tmp_path: Path) -> None:
    """10 dB at least; what is lost then is lost by the rounding of weights."""
    target = runnable("x86-64-avx2")
    reports = [_report(MODELS[name], target, word, tmp_path, 16) for word in ("w8a8", "w8a16")]
    assert [r["bit_exact"]["mismatches"] for r in reports] == [0, 0]
    before, after = (r["accuracy"]["sqnr_db"]["emitted"] for r in reports)
    assert after >= before + 10


def test_four_bits_of_weights_with_sixteen_of_activations(
    runnable: Callable[[str], str], tmp_path: Path
) -> None:
    report = _report(DEMO, runnable("x86-64-avx2"), "w4a16", tmp_path, 16)
    assert report["bit_exact"]["mismatches"] == 0
    assert ("int16", "int4") in {(row["activation"], row["weight"]) for row in report["bits"]}
