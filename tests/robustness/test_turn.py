"""Compilations that several threads of a process want at once, as a server or a notebook may."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from onnx_models import model, node, normal, save

import hwptq

THREADS = 3


def test_compilations_in_threads(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """Each gives what it gives alone, and the process keeps its standard output."""
    w = normal(1, 4, 3, 3, 3)
    path = save(
        model([node("Conv", "x w", "c"), node("Relu", "c", "y")], {"x": ["N", 3, 8, 8]}, {"w": w}),
        tmp_path,
    )
    data = [{"x": normal(seed, 1, 3, 8, 8)} for seed in range(16)]

    def compiled(name: str) -> np.ndarray:
        found = hwptq.compile(path, "x86-64-avx2", data, output=tmp_path / name, recipe="fast", cache=False)
        return found.run(data[0])["y"]

    alone = compiled("alone")
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(compiled, map(str, range(THREADS))))
    for y in found:
        np.testing.assert_array_equal(y, alone)
    print("still here")
    assert "still here" in capfd.readouterr().out
