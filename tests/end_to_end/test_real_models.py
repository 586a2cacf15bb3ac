"""Whole models: every multiply-accumulate in integers, and the same bits from numpy, x86-64 and AArch64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_models import MODELS

TARGETS = ("arm-cortex-a", "x86-64-vnni")


@pytest.mark.parametrize("name", MODELS)
def test_all_in_integers_and_bit_exact(
    name: str, demo: Callable[[str], Any], runnable: Callable[[str], str], tmp_path: Path
):
    golden = {}
    for target in TARGETS:
        case, folder = MODELS[name], tmp_path / target
        model = demo(target) if name == "demo" else case.compiled(runnable(target), folder)
        cover, exact = model.report["coverage"], model.report["bit_exact"]
        assert cover["nodes_float"] == []
        assert cover["macs_quantized"] == cover["macs_total"] > 1e5
        assert exact["mismatches"] == 0
        assert exact["values"] >= 10 * exact["samples"] > 0
        accuracy = model.report["accuracy"]
        assert accuracy["emitted"] == accuracy["reference"]
        assert accuracy["sqnr_db"]["emitted"] > 15
        golden[target] = np.load(model.folder / "golden.npz")
    first, second = golden.values()
    assert sorted(first.files) == sorted(second.files)
    for key in first.files:
        np.testing.assert_array_equal(first[key], second[key])
