"""The output folder: what lies in it, and that each of its files computes the golden outputs."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax

import hwptq
from hwptq.backends.static_c.runtime import link_program
from hwptq.backends.toolchain import binary_tool
from hwptq.errors import HwptqError, InputError
from hwptq.targets import load_target

X86, ARM, HEXAGON = "x86-64-vnni", "arm-cortex-a", "hexagon-v66-npu"


def samples(model: Any) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Golden inputs and the output of each."""
    golden = np.load(model.folder / "golden.npz")
    (tensor,) = model.inputs
    for x, y in zip(golden[tensor.name], golden["output_0"], strict=True):
        yield {tensor.name: x[np.newaxis]}, y[np.newaxis]


def test_files_of_the_folder(demo: Callable[[str], Any]):
    names = {p.name for p in demo(ARM).folder.iterdir()}
    assert names >= {
        "digits", "digits.o", "digits.h", "model.so", "golden.npz", "report.json", "metadata.json"
    }  # fmt: skip
    header = subprocess.run(
        ["file", demo(ARM).folder / "digits"], capture_output=True, text=True, check=False
    )
    if header.returncode == 0:
        assert "aarch64" in header.stdout
        assert "statically linked" in header.stdout


def test_the_keys_of_the_report(demo: Callable[[str], Any]):
    report = json.loads((demo(ARM).folder / "report.json").read_text(encoding="utf-8"))
    assert (report["schema"], report["model"], report["target"]) == (1, "digits", ARM)
    assert report["hwptq"] == hwptq.__version__
    assert {"macs_total", "macs_quantized", "nodes_quantized", "nodes_float"} <= report["coverage"].keys()
    row = {"name", "op", "weight", "activation", "macs", "weight_bytes"}
    assert all(row <= r.keys() for r in report["bits"])
    assert sum(r["macs"] for r in report["bits"]) == report["coverage"]["macs_total"]
    assert 0 < report["weight_bytes"]["quantized"] < report["weight_bytes"]["float32"]
    assert "qemu-aarch64" in report["bit_exact"]["executor"]
    assert (report["bit_exact"]["samples"], report["bit_exact"]["values"]) == (12, 120)
    assert report["accuracy"].keys() >= {"metric", "samples", "float32", "reference", "emitted"}
    assert report["accuracy"]["metric"] == "top1"
    assert all(r["sqnr_db"] > 10 for r in report["layers"])
    assert report["seconds"].keys() >= {"import", "calibrate", "lower", "build", "verify"}


@pytest.mark.parametrize("target", [X86, ARM])
def test_load_and_run(demo: Callable[[str], Any], target: str, tmp_path: Path):
    folder = shutil.copytree(demo(target).folder, tmp_path / "moved")
    model = hwptq.load(folder)
    inputs, expected = zip(*samples(model), strict=True)
    for found, y in zip(model.run_stream(inputs), expected, strict=True):
        np.testing.assert_array_equal(found["logits"], y)
    np.testing.assert_array_equal(model.run(inputs[3])["logits"], expected[3])


def test_what_run_refuses(demo: Callable[[str], Any]):
    model = demo(X86)
    (tensor,) = model.inputs
    with pytest.raises(InputError, match=f"input '{tensor.name}' is missing"):
        model.run({"other": np.zeros(tensor.shape, np.float32)})
    with pytest.raises(InputError, match=r"float64 .* given, float32 .* needed"):
        model.run({tensor.name: np.zeros(tensor.shape)})
    with pytest.raises(InputError, match="needed"):
        model.run({tensor.name: np.zeros((2, *tensor.shape[1:]), np.float32)})


def test_what_load_refuses(tmp_path: Path):
    with pytest.raises(InputError, match="no output folder of hwptq"):
        hwptq.load(tmp_path)
    (tmp_path / "metadata.json").write_text('{"inputs": 3}', encoding="utf-8")
    with pytest.raises(InputError, match="no output folder of hwptq"):
        hwptq.load(tmp_path)


def test_the_library_for_the_runtime_of_tvm(demo: Callable[[str], Any]):
    model = demo(X86)
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(model.folder / "model.so")), tvm.cpu())
    for inputs, y in samples(model):
        np.testing.assert_array_equal(machine["main"](*map(tvm.runtime.tensor, inputs.values())).numpy(), y)


@pytest.mark.parametrize("target", [X86, ARM])
def test_the_library_has_the_kernels_of_the_object(demo: Callable[[str], Any], target: str):
    """All but those that ask the program for scratch memory, or write over an operand."""
    folder, nm = demo(target).folder, binary_tool(load_target(target).toolchain.compiler, "nm")

    def sizes(file: str) -> dict[str, str]:
        done = subprocess.run([nm, "-S", folder / file], capture_output=True, text=True, check=True)
        lines = [line.split() for line in done.stdout.splitlines()]
        return {name: size for *_, size, kind, name in (x for x in lines if len(x) == 4) if kind in "tT"}

    shared = {name: size for name, size in sizes("model.so").items() if name.startswith("digits_")}
    assert shared.items() <= sizes("digits.o").items()
    assert len(shared) > 8
    assert not any("workspace" in name for name in shared)


MAIN = """
#include <stdio.h>
#include "digits.h"
static const int input_bytes[] = DIGITS_INPUT_BYTES, output_bytes[] = DIGITS_OUTPUT_BYTES;
_Static_assert(DIGITS_INPUTS == 1 && DIGITS_OUTPUTS == 1, "one input, one output");
static _Alignas(DIGITS_ALIGNMENT) unsigned char arena[DIGITS_ARENA_BYTES], in[4096], out[4096];
int main(void) {
    const void *inputs[] = {in};
    void *outputs[] = {out};
    while (fread(in, input_bytes[0], 1, stdin) == 1) {
        if (digits_run(inputs, outputs, arena)) return 1;
        fwrite(out, output_bytes[0], 1, stdout);
    }
    return 0;
}
"""


def test_a_c_program_of_ones_own(demo: Callable[[str], Any], tmp_path: Path):
    model = demo(X86)
    source, program = tmp_path / "own.c", tmp_path / "own"
    source.write_text(MAIN, encoding="utf-8")
    strict = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-I", str(model.folder))
    subprocess.run(["gcc", *strict, source, model.folder / "digits.o", "-o", program, "-lm"], check=True)
    inputs, expected = zip(*samples(model), strict=True)
    data = b"".join(v.tobytes() for sample in inputs for v in sample.values())
    done = subprocess.run([program], input=data, capture_output=True, check=True)
    found = np.frombuffer(done.stdout, np.float32).reshape(len(inputs), -1)
    np.testing.assert_array_equal(found, np.concatenate(expected))


BARE_MAIN = """
#include <stddef.h>
#include "digits.h"
long read(int file, void *p, size_t n);
long write(int file, const void *p, size_t n);
static const long input_bytes[] = DIGITS_INPUT_BYTES, output_bytes[] = DIGITS_OUTPUT_BYTES;
static _Alignas(DIGITS_ALIGNMENT) unsigned char arena[DIGITS_ARENA_BYTES], in[4096], out[4096];
int main(void) {
    const void *inputs[] = {in};
    void *outputs[] = {out};
    while (read(0, in, input_bytes[0]) == input_bytes[0]) {
        if (digits_run(inputs, outputs, arena)) return 1;
        if (write(1, out, output_bytes[0]) != output_bytes[0]) return 2;
    }
    return 0;
}
"""


def test_a_program_of_ones_own_for_a_device_without_a_c_library(demo: Callable[[str], Any], tmp_path: Path):
    model = demo(HEXAGON)
    target = load_target(HEXAGON)
    (tmp_path / "own.c").write_text(BARE_MAIN, encoding="utf-8")
    tools = target.toolchain
    own = ["-I", str(model.folder), "own.c", str(model.folder / "digits.o")]
    link_program(target, own, tmp_path / "own", tmp_path)
    inputs, expected = zip(*samples(model), strict=True)
    data = tmp_path / "samples"
    data.write_bytes(b"".join(v.tobytes() for sample in inputs for v in sample.values()))
    with data.open("rb") as stdin:
        done = subprocess.run([*tools.run, tmp_path / "own"], stdin=stdin, capture_output=True, check=True)
    found = np.frombuffer(done.stdout, np.float32).reshape(len(inputs), -1)
    np.testing.assert_array_equal(found, np.concatenate(expected))


def test_sdot_code_needs_a_cpu_with_sdot(demo: Callable[[str], Any]):
    """Negative control: what runs are the instructions that the descriptor promises."""
    model = demo(ARM)
    inputs, _ = next(samples(model))
    model.run(inputs)
    older = replace(model, program=replace(model.program, run=("qemu-aarch64", "-cpu", "cortex-a72")))
    with pytest.raises(HwptqError, match="the program uses instructions that this CPU lacks"):
        older.run(inputs)


def test_a_program_that_does_not_start(demo: Callable[[str], Any], tmp_path: Path):
    model = demo(X86)
    folder = shutil.copytree(model.folder, tmp_path / "broken")
    (folder / "digits").write_bytes(b"\x7fELF no more")
    with pytest.raises(HwptqError, match="can't be started"):
        hwptq.load(folder, executor="process").run(next(samples(model))[0])
    (folder / "libdigits.so").write_bytes(b"\x7fELF no more")
    with pytest.raises(HwptqError, match="can't be loaded"):
        hwptq.load(folder).run(next(samples(model))[0])
