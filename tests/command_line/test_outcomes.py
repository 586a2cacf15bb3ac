"""Exit codes of compilations that run to their end, and the commands about targets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import TARGET, Command
from tvm import relax

import hwptq as package
from hwptq import flow
from hwptq.backends.backend import why_not_run
from hwptq.frontends.frontend import read_model
from hwptq.frontends.onnx import operators
from hwptq.kernels.layer import Layer
from hwptq.notices import Warning
from hwptq.operators.dense import Dense
from hwptq.passes import select_kernels
from hwptq.targets import load_target, target_names

_REASON = why_not_run(load_target(TARGET))
native = pytest.mark.skipif(_REASON is not None, reason=f"{TARGET}: {_REASON}")


def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))


@native
def test_success_and_a_second_run_over_it(hwptq: Command):
    first = hwptq.compile()
    assert first.code == 0
    for part in ("in integers", "100.0 %", "bit-exact: 6 samples, 30 values", "top-1", "written to"):
        assert part in first.stdout
    before = report(hwptq.folder)
    assert hwptq.compile("--samples", "2").code == 0
    assert (before["bit_exact"]["samples"], report(hwptq.folder)["bit_exact"]["samples"]) == (6, 2)
    left = {p.name for p in hwptq.folder.iterdir()}
    assert left == {"model.onnx", "data.npz", "out"}


@native
def test_accuracy_missed(hwptq: Command, monkeypatch: pytest.MonkeyPatch):
    """A metric that says less each time it is asked: first of float32, last of the emitted code."""
    code = "from itertools import count\nasked = count()\ndef less(outputs, labels): return -next(asked)\n"
    (hwptq.folder / "less_metric.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(hwptq.folder)
    outcome = hwptq.compile("--max-drop", "0.5", "--metric", "less_metric:less")
    assert outcome.code == 5
    assert "--max-drop allows 0.5" in outcome.error
    assert "written to" in outcome.stdout
    assert report(hwptq.folder)["accuracy"]["metric"] == "less_metric:less"


@native
@pytest.mark.parametrize("flags", [(), ("--strict",)])
def test_a_warning_is_shown_and_ends_a_strict_compilation(
    hwptq: Command, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
):  # fmt: skip
    warned = Warning("sqnr", "x", "is all zeros")

    def importing(*arguments: Any) -> Any:
        return replace(read_model(*arguments), warnings=(warned,))

    monkeypatch.setattr(flow, "read_model", importing)
    outcome = hwptq.compile(*flags)
    assert outcome.code == (5 if flags else 0)
    assert "x: is all zeros" in outcome.stdout
    assert [w["kind"] for w in report(hwptq.folder)["warnings"]] == ["sqnr", "few-samples", "same-data"]
    if flags:
        assert outcome.error == "hwptq: --strict: x: is all zeros (and 2 more, see report.json)"


def test_a_wrong_import_is_found(hwptq: Command, monkeypatch: pytest.MonkeyPatch):
    """Negative control: a convolution whose output channels come in another order."""

    def flipped(given: Any, attrs: Any) -> Any:
        return relax.op.nn.conv2d(given[0], relax.op.flip(given[1], 0), padding=(1, 1))

    monkeypatch.setitem(operators._CONVERTERS, "Conv", flipped)
    assert "node 'conv' (Conv) was imported wrongly" in hwptq.refused(3)


@native
def test_a_broken_kernel_is_found(hwptq: Command, monkeypatch: pytest.MonkeyPatch):
    """Negative control: kernels for another zero point differ from the reference."""
    select = select_kernels.select

    def broken(layer: Layer, *arguments: Any) -> Any:
        if isinstance(layer.op, Dense):
            layer = replace(layer, op=replace(layer.op, out_zero_point=layer.op.out_zero_point + 1))
        return select(layer, *arguments)

    monkeypatch.setattr(select_kernels, "select", broken)
    outcome = hwptq.compile()
    assert outcome.code == 6
    assert "the emitted code differs from the reference" in outcome.error
    assert "mismatches" in outcome.stdout
    exact = report(hwptq.folder)["bit_exact"]
    assert exact["mismatches"] > exact["values"] / 2
    assert exact["first_mismatch"] == "y"


@native
def test_a_metric_of_ones_own(hwptq: Command, monkeypatch: pytest.MonkeyPatch):
    code = "def first(outputs, labels):\n    return float((outputs[0].argmax(1) == labels).mean())\n"
    (hwptq.folder / "own_metric.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(hwptq.folder)
    assert hwptq.compile("--metric", "own_metric:first").code == 0
    accuracy = report(hwptq.folder)["accuracy"]
    assert accuracy["metric"] == "own_metric:first"
    assert 0 <= accuracy["emitted"] <= 1


def test_targets(hwptq: Command, tmp_path: Path):
    listed = hwptq("targets", "list")
    assert listed.code == 0
    assert all(name in listed.stdout for name in target_names())
    shown = hwptq("targets", "show", "arm-cortex-a")
    assert all(part in shown.stdout for part in ("depthwise_conv2d", "sdot", "qemu-aarch64"))
    own = tmp_path / "own.toml"
    own.write_text('schema = 1\nname = "own"\nsummary = "s"\nextends = "x86-64-avx2"\n', encoding="utf-8")
    checked = hwptq("targets", "check", own)
    said = re.escape(f"{own}: own is valid") + r", \d+ of its intrinsics compute what it says"
    assert re.fullmatch(said, checked.stdout.strip().replace("\n", ""))
    assert "wasm32-simd is valid" in hwptq("targets", "check", "wasm32-simd").stdout
    assert hwptq("targets", "show", "no-such-target").code == 2


def test_version(hwptq: Command):
    assert hwptq("--version").stdout == f"hwptq {package.__version__}\n"


def test_the_module_is_the_command(tmp_path: Path):
    """As a process: standard output stays empty, standard error holds one line."""
    arguments = ["compile", "absent.onnx", "--target", TARGET, "--calibration-data", "absent.npz"]
    command = [sys.executable, "-m", "hwptq", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "hwptq: absent.onnx: no such file; give the path of an ONNX model\n"
    assert list(tmp_path.iterdir()) == []


@native
def test_dynamic_activations_need_no_data(hwptq: Command):
    arguments = hwptq.folder / "model.onnx", "--target", TARGET, "--output", hwptq.folder / "out"
    outcome = hwptq("compile", *arguments, "--activations", "dynamic", "--keep-float", "conv|relu|flatten")
    assert outcome.code == 0
    found = report(hwptq.folder)
    assert found["bit_exact"]["mismatches"] == 0
    assert found["bit_exact"]["samples"] > 0
    assert "made-up-data" in {w["kind"] for w in found["warnings"]}
    assert [(row["op"], row["weight"], row["activation"]) for row in found["bits"]] == [
        ("dense", "int8", "int8")
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--activations", "sometimes"), "--activations sometimes: give static or dynamic"),
        (("--activations", "dynamic", "--precision", "w4a8"), "is int8 by int8"),
        (("--activations", "dynamic", "--weight-granularity", "tensor"), "a scale for each channel or group"),
        (("--group", "32"), "--group is about --weight-granularity group"),
        (
            ("--activations", "dynamic", "--weight-granularity", "group", "--precision", "w5a8"),
            "w5a8: x86-64-avx2 offers w8a8, w4a8, w3a8, w2a8 in groups",
        ),
        (("--activations", "dynamic", "--dry-run"), "leave --activations dynamic out"),
    ],
)
def test_dynamic_activations_leave_little_to_choose(hwptq: Command, options, message):
    assert message in hwptq.refused(2, *options)


def test_dynamic_activations_need_dense_layers_with_float_results(hwptq: Command):
    error = hwptq.refused(2, "--activations", "dynamic", target="hexagon-v66-npu")
    assert "hexagon-v66-npu offers no dense layers from int8 to float32" in error
