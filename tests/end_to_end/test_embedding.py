"""examples/embedding: the passes between those of TVM."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "embedding" / "own_pipeline.py"


def test_passes_in_a_pipeline_of_ones_own(
    runnable: Callable[[str], str], capsys: pytest.CaptureFixture[str]
):  # fmt: skip
    assert runpy.run_path(str(SCRIPT))["main"](runnable("x86-64-avx2")) == 0
    printed = capsys.readouterr().out
    found = re.search(r"recognized: ([\d.]+)% in float, ([\d.]+)% in integers", printed)
    assert found, printed
    in_float, in_integers = map(float, found.groups())
    assert in_float > 98
    assert abs(in_float - in_integers) <= 1
    assert "0 of 4500 values differ" in printed
