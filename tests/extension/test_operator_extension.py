"""An operator defined outside the package: its nodes compute in integers, and the code is bit-exact."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_models as om

HERE = Path(__file__).parent

# A process of its own: the operator would stay registered in this one.
COMPILE = """
import sys
import operator_extension
import hwptq

model, target, data, out = sys.argv[1:]
hwptq.compile(model, target, data, data, output=out)
"""


def test_the_larger_of_two_tensors_is_computed_in_integers(
    runnable: Callable[[str], str], tmp_path: Path
) -> None:
    target = runnable("x86-64-avx2")
    nodes = [
        om.node("Conv", "x w", "a", "first"),
        om.node("Conv", "x v", "b", "second"),
        om.node("Max", "a b", "m", "larger"),
        om.node("Conv", "m u", "y", "last"),
    ]
    weights = {"w": om.normal(0, 20, 3, 3, 3), "v": om.normal(1, 20, 3, 3, 3, spread=3.0)}
    weights["u"] = om.normal(2, 5, 20, 1, 1)
    model = om.save(om.model(nodes, {"x": (1, 3, 8, 9)}, weights), tmp_path)
    data, out = tmp_path / "data.npz", tmp_path / "out"
    np.savez(data, x=om.normal(3, 16, 3, 8, 9))
    paths = os.pathsep.join([str(HERE), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, str(model), target, str(data), str(out)],
        env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["coverage"]["nodes_float"] == []
    assert report["coverage"]["nodes_quantized"] == 4
    assert report["bit_exact"]["mismatches"] == 0
    assert report["bit_exact"]["values"] == 16 * 5 * 6 * 7
    assert min(report["accuracy"]["sqnr_db"].values()) > 25
