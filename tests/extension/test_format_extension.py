"""A format defined outside the package: a descriptor offers it, layers get it, and the code is bit-exact."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
DEMO = HERE.parents[1] / "examples" / "digits"

DESCRIPTOR = """
schema = 1
name = "six-bits"
extends = "x86-64-avx2"
summary = "weights of 6 bits"

[[op]]
op = "conv2d"
pairs = [["int8", "int6"], ["int8", "int8"]]

[[op]]
op = "dense"
pairs = [["int8", "int6"]]

[cost]
int6 = 0.03125
"""

# A process of its own: the format would stay registered in this one.
COMPILE = """
import sys
import format_extension
import hwptq

demo, target, out = sys.argv[1:]
hwptq.compile(
    f"{demo}/digits.onnx", target, f"{demo}/calibration.npz", f"{demo}/evaluation.npz",
    preprocess=f"{demo}/preprocess.toml", output=out, options=hwptq.Options(samples=20),
)
"""


def test_the_demo_compiles_with_weights_of_six_bits(tmp_path: Path) -> None:
    target, out = tmp_path / "six-bits.toml", tmp_path / "out"
    target.write_text(DESCRIPTOR, encoding="utf-8")
    paths = os.pathsep.join([str(HERE), *sys.path])
    command = [sys.executable, "-c", COMPILE, str(DEMO), str(target), str(out)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["bit_exact"]["mismatches"] == 0
    assert report["bit_exact"]["values"] == 200
    weights = {row["op"]: row["weight"] for row in report["bits"]}
    assert weights["conv2d"] == weights["dense"] == "int6"
    assert report["accuracy"]["emitted"] > 0.9
