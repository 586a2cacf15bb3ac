"""Constants in the assembly language of each object format, assembled and looked at."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from hwptq.backends.static_c.data_assembly import data_assembly
from hwptq.backends.toolchain import call_tool
from hwptq.targets import load_target

TRIPLES = {
    "ELF": "aarch64-linux-gnu",
    "Mach-O": "arm64-apple-macos13",
    "WebAssembly": "wasm32-unknown-wasi",
}


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize("form", TRIPLES)
def test_any_object_format_takes_it(form: str, writable: bool, tmp_path: Path) -> None:
    if shutil.which("clang") is None or shutil.which("llvm-nm") is None:
        pytest.skip("clang or llvm-nm not found on PATH")
    triple = TRIPLES[form]
    target = replace(load_target("arm-cortex-a"), tvm={"kind": "llvm", "mtriple": triple})
    content = bytes(range(256)) * 3
    (tmp_path / "content.bin").write_bytes(content)
    text = data_assembly("own_data", "content.bin", target, writable=writable)
    (tmp_path / "data.s").write_text(text)
    call_tool(["clang", f"--target={triple}", "-c", "data.s", "-o", "data.o"], tmp_path)
    assert content in (tmp_path / "data.o").read_bytes()
    names = subprocess.run(["llvm-nm", "data.o"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert {"own_data", "_own_data"} & set(names.stdout.split())
