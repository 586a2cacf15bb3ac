"""A frontend joins by being imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import frontend_extension  # noqa: F401
from onnx_models import normal

import hwptq


def test_compiles_what_the_extension_takes(runnable: Any, tmp_path: Path) -> None:
    matrices = [normal(0, 16, 32), normal(1, 32, 4)]
    made = hwptq.compile(
        matrices, runnable("x86-64-avx2"), [normal(2, 8, 16)], output=tmp_path, recipe="fast"
    )
    report = made.typed_report
    assert [row.name for row in report.bits] == ["hidden0", "last"]
    assert (report.bit_exact.mismatches, report.coverage.share) == (0, 1.0)
