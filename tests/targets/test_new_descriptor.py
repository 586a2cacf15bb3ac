"""Targets are data: descriptors of chips that nobody prepared for, written here, compile the demo.

Other vector lengths, other pairs of dtypes, other emulators than the shipped ones; no code knows of them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import hwptq
from hwptq.recipe import RECIPES
from hwptq.targets import load_target

DEMO = Path(__file__).parents[2] / "examples" / "digits"

ARM_64_BIT = """
schema = 1
name = "arm-d-registers"
extends = "arm-cortex-a"
summary = "sdot on 64-bit registers, 4 bits everywhere"

[tvm]
mcpu = "neoverse-n1"

[toolchain]
run = ["qemu-aarch64", "-cpu", "neoverse-n1"]

[kernel.sdot]
intrinsic = "llvm.aarch64.neon.sdot.v2i32.v8i8"
lanes = 2
by_element = false
tile_pixels = 3
tile_vectors = 3

[[op]]
op = "conv2d"
pairs = [["int4", "int4"], ["int8", "int8"]]

[[op]]
op = "dense"
pairs = [["int8", "int4"]]
"""

RISCV_512_BIT = """
schema = 1
name = "rvv-512"
extends = "riscv64-rvv"
summary = "vectors of 512 bits, 4-bit weights preferred"

[tvm]
mattr = ["+m", "+a", "+f", "+d", "+c", "+v", "+zvl512b"]

[toolchain]
run = ["qemu-riscv64", "-cpu", "rv64,v=true,vlen=512,vext_spec=v1.0"]

[kernel.vector]
lanes = 16
tile_pixels = 3

[[op]]
op = "conv2d"
pairs = [["int8", "int4"], ["int8", "int8"]]

[[op]]
op = "depthwise_conv2d"
pairs = [["int8", "int4"]]
"""

X86_128_BIT = """
schema = 1
name = "x86-64-ssse3"
summary = "x86-64 of 2006: pmaddwd on 128 bits"

[tvm]
kind = "llvm"
mtriple = "x86_64-linux-gnu"
mcpu = "core2"

[toolchain]
compiler = ["gcc"]
run = ["qemu-x86_64", "-cpu", "max"]
instruction = "pmaddwd"

[kernel.pmaddwd]
template = "dot_product"
intrinsic = "llvm.x86.sse2.pmadd.wd"
lanes = 4
k = 2
operand_bits = 16
accumulates = false
tile_pixels = 2

[kernel.depthwise]
template = "depthwise"
lanes = 4

[[op]]
op = "conv2d"
kernel = "pmaddwd"
pairs = [["int8", "int8"], ["int4", "int4"]]

[[op]]
op = "depthwise_conv2d"
kernel = "depthwise"
granularity = "tensor"

[[op]]
op = "dense"
kernel = "pmaddwd"

[[op]]
op = "add"

[[op]]
op = "avg_pool"

[[op]]
op = "data_movement"

[cost]
int8 = 0.125
int4 = 0.1
"""

CASES: dict[str, tuple[str, dict[str, Any], set[tuple[str, str]]]] = {
    "arm-d-registers": (ARM_64_BIT, {}, {("int4", "int4"), ("int8", "int8"), ("int8", "int4")}),
    "rvv-512": (RISCV_512_BIT, {}, {("int8", "int4"), ("int8", "int8")}),
    "x86-64-ssse3": (
        X86_128_BIT,
        {"precision": "w4a4", "lower_ends": True},
        {("int4", "int4"), ("int8", "int8")},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_new_chip_is_one_file(name: str, tmp_path: Path) -> None:
    text, options, pairs = CASES[name]
    path = tmp_path / "chip.toml"
    path.write_text(text)
    target = load_target(path)
    for program in (target.toolchain.compiler[0], *target.toolchain.run[:1]):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing")
    chosen = hwptq.Options(samples=6, recipe=RECIPES["fast"], **options)
    data = [str(DEMO / name) for name in ("calibration.npz", "evaluation.npz", "preprocess.toml")]
    model = hwptq.compile(DEMO / "digits.onnx", path, *data, tmp_path / "out", chosen)
    report = model.report
    assert report["bit_exact"]["executor"].startswith(" ".join(target.toolchain.run))
    assert report["bit_exact"]["mismatches"] == 0
    assert report["bit_exact"]["values"] == 60
    assert report["coverage"]["macs_quantized"] == report["coverage"]["macs_total"]
    assert {(row["activation"], row["weight"]) for row in report["bits"]} == pairs
    objdump = [*target.toolchain.objdump, "-d", "--no-show-raw-insn", str(tmp_path / "out" / "digits.o")]
    code = subprocess.run(objdump, capture_output=True, text=True, check=True).stdout
    if target.toolchain.instruction:
        assert re.search(rf"\s{target.toolchain.instruction}\s", code)
