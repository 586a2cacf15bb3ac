"""A template defined outside the package: a descriptor names it, its table is checked, its code is exact."""

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
name = "pairs"
extends = "x86-64-avx2"
summary = "products in pairs"

[kernel.pairs]
template = "pair_product"
lanes = 8

[[op]]
op = "conv2d"
kernel = "pairs"

[[op]]
op = "dense"
kernel = "pairs"
"""

# A process of its own: the template would stay defined in this one.
CHECK = """
import sys
import template_extension
from hwptq.targets import load_target

load_target(sys.argv[1])
"""
COMPILE = """
import sys
import template_extension
import hwptq

demo, target, out = sys.argv[1:]
hwptq.compile(
    f"{demo}/digits.onnx", target, f"{demo}/calibration.npz", f"{demo}/evaluation.npz",
    preprocess=f"{demo}/preprocess.toml", output=out, options=hwptq.Options(samples=20),
)
"""


def python(code: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(HERE), *sys.path])
    command = [sys.executable, "-c", code, *map(str, arguments)]
    env = os.environ | {"PYTHONPATH": paths}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_the_demo_compiles_with_it(tmp_path: Path) -> None:
    target, out = tmp_path / "pairs.toml", tmp_path / "out"
    target.write_text(DESCRIPTOR, encoding="utf-8")
    done = python(COMPILE, DEMO, target, out)
    assert done.returncode == 0, done.stderr
    exact = json.loads((out / "report.json").read_text(encoding="utf-8"))["bit_exact"]
    assert (exact["mismatches"], exact["values"]) == (0, 200)
    code = (out / "digits.o").read_bytes()
    assert b"conv2d_pair_product" in code
    assert b"dense_pair_product" in code


def test_its_table_is_checked(tmp_path: Path) -> None:
    target = tmp_path / "pairs.toml"
    target.write_text(DESCRIPTOR.replace("lanes = 8", "lanes = 7"), encoding="utf-8")
    assert "kernel.pairs.lanes: lanes * 32 is 224 bits" in python(CHECK, target).stderr
    target.write_text(DESCRIPTOR.replace("pair_product", "pair_products"), encoding="utf-8")
    assert "unknown template 'pair_products' (did you mean pair_product?)" in python(CHECK, target).stderr
