"""What the samples leave in float has code on every device, without a library, and the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx_models import model, node, normal, save

import hwptq
from hwptq.data.dataset import from_batches
from hwptq.frontends.onnx.importer import import_onnx


@pytest.mark.parametrize("function", ["Sqrt", "Log"])
@pytest.mark.parametrize("target", ["x86-64-avx2", "arm-cortex-m4"])
def test_functions_of_powers(
    function: str, target: str, runnable: Callable[[str], str], tmp_path: Path
) -> None:
    """Of 40 dB. The root is left in float; the logarithm, which would need a library, is a table."""
    weights = {"u": normal(1, 8, 8, 1, 1), "w": normal(3, 4, 8, 1, 1), "least": np.float32(1e-6)}
    nodes = [
        node("Conv", "x u", "a", name="first"), node("Mul", "a a", "aa", name="square"),
        node("Add", "aa least", "s", name="sum"), node("Add", "s x", "p", name="power"),
        node("Abs", "p", "q", name="size"), node(function, "q", "r", name="function"),
        node("Conv", "r w", "y", name="last"),
    ]  # fmt: skip
    path = save(model(nodes, {"x": [1, 8, 6, 6]}, weights), tmp_path)
    scales = 10 ** np.random.default_rng(5).uniform(-2, 0, (16, 1, 1, 6, 6)).astype(np.float32)
    samples = [{"x": abs(normal(i, 1, 8, 6, 6)) * s} for i, s in enumerate(scales)]
    data = from_batches(samples, import_onnx(path).inputs)
    report = hwptq.compile(path, runnable(target), data, data, output=tmp_path / "out").report
    assert report["bit_exact"]["mismatches"] == 0
    left = {row["name"] for row in report["coverage"]["nodes_float"]}
    assert ("function" in left) == (function == "Sqrt")
