"""What can be wrong with what a user gives: one line that says so, an exit code, and no leftovers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Command, images
from onnx_models import model, node, save

from hwptq.targets import load_target


def check(error: str, *parts: str) -> None:
    """Fail unless the line holds each regular expression."""
    for part in parts:
        assert re.search(part, error), error


# The model


def test_no_model(hwptq: Command):
    check(
        hwptq.refused(2, model="absent.onnx"), r"absent\.onnx: no such file", "give the path of an ONNX model"
    )


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_truncated_model(hwptq: Command, keep: float):
    path = hwptq.folder / "model.onnx"
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    check(hwptq.refused(2), r"model\.onnx: not a readable ONNX model: ")


def test_unsupported_operator(hwptq: Command):
    save(model([node("Det", "x", "y")], {"x": ["N", 4, 4]}), hwptq.folder)
    check(hwptq.refused(3), r"model\.onnx: .*Det")


def test_symbolic_axis(hwptq: Command):
    save(model([node("Relu", "x", "y")], {"x": ["N", "length"]}), hwptq.folder)
    check(hwptq.refused(3), "input 'x': axis 1 is symbolic|input 'x'.*length")


def test_fixed_batch(hwptq: Command):
    save(model([node("Relu", "x", "y")], {"x": [2, 3, 5, 6]}), hwptq.folder)
    check(hwptq.refused(2), r"the graph expects \(2, 3, 5, 6\).*export it with a batch of 1")


def test_nothing_to_quantize(hwptq: Command):
    save(model([node("Softmax", "x", "y", "softmax")], {"x": ["N", 3, 5, 6]}), hwptq.folder)
    check(
        hwptq.refused(3), "nothing of the model can be quantized", "softmax: only operators in float read it"
    )


# The data


def _nan() -> np.ndarray:
    values = images()
    values[3, 0, 1, 2] = np.nan
    return values


def _inf() -> np.ndarray:
    values = images()
    values[0, 0, 0, 0] = -np.inf
    return values


BAD_DATA: dict[str, tuple[dict[str, Any], str]] = {
    "wrong key": ({"image": images()}, "'?image'?"),
    "wrong shape": ({"x": images()[:, :2]}, r"\[?\(?2, 5, 6"),
    "wrong dtype": ({"x": np.full((6, 3, 5, 6), "a")}, "dtype|type"),
    "complex": ({"x": images().astype(np.complex64)}, "complex64"),
    "NaN": ({"x": _nan()}, "NaN"),
    "Inf": ({"x": _inf()}, "Inf"),
    "empty": ({"x": images(0)}, "no samples|at least"),
    "labels of another length": ({"x": images(), "y": np.arange(3)}, "y"),
}


@pytest.mark.parametrize("use", ["--calibration-data", "--evaluation-data"])
@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_arrays(hwptq: Command, kind: str, use: str):
    arrays, part = BAD_DATA[kind]
    bad = hwptq.folder / "bad.npz"
    np.savez(bad, **arrays)
    error = hwptq.refused(2, use, bad)
    check(error, r"bad\.npz", part)


def test_pickled_data(hwptq: Command):
    np.savez(hwptq.folder / "bad.npz", x=np.array([{"a": 1}] * 6, dtype=object))
    check(hwptq.refused(2, calibration_data=hwptq.folder / "bad.npz"), r"bad\.npz", "pickle|object")


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_truncated_data(hwptq: Command, keep: float):
    path = hwptq.folder / "data.npz"
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    check(hwptq.refused(2), r"data\.npz")


@pytest.mark.parametrize(
    "data", ["absent.npz", "no_such_module:data", "command:no_such_function", "model.onnx"]
)
def test_no_data(hwptq: Command, data: str):
    check(hwptq.refused(2, calibration_data=data), re.escape(data.split(":")[0]))


def test_no_data_at_all(hwptq: Command):
    files = (hwptq.folder / "model.onnx", "--output", hwptq.folder / "out")
    outcome = hwptq("compile", *files, "--target", "x86-64-avx2")
    assert outcome.code == 2
    check(outcome.error, "give calibration data")


# The target


def test_unknown_target(hwptq: Command):
    check(hwptq.refused(2, target="arm-cortex-b"), "arm-cortex-b", "arm-cortex-a")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("schema = ", (r"bad\.toml",)),
        ('schema = 1\nname = "x"\nsumary = "y"\n', ("sumary", "did you mean")),
        ("", (r"bad\.toml", "missing|needed")),
    ],
)
def test_malformed_descriptor(hwptq: Command, text: str, parts: tuple[str, ...]):
    """All mistakes are named at once, one a line (tests/targets holds many more)."""
    path = hwptq.folder / "bad.toml"
    path.write_text(text, encoding="utf-8")
    outcome = hwptq.compile(target=path)
    assert (outcome.code, outcome.stdout) == (2, "")
    check(outcome.stderr, *parts)
    assert "Traceback" not in outcome.stderr
    assert not (hwptq.folder / "out").exists()


@pytest.mark.parametrize("name", ["arm-cortex-a", "x86-64-avx2"])
def test_missing_programs(hwptq: Command, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(hwptq.folder))
    tools = load_target(name).toolchain
    error = hwptq.refused(2, target=name)
    wanted = [c[0] for c in (tools.compiler, tools.run) if c]
    check(error, *(re.escape(w) for w in wanted), "not found on PATH; install", *tools.packages)


def test_linker_that_fails(hwptq: Command, monkeypatch: pytest.MonkeyPatch):
    folder = hwptq.folder / "bin"
    folder.mkdir()
    (folder / "gcc").write_text("#!/bin/sh\necho 'ld: error: disk full' >&2; exit 1\n", encoding="utf-8")
    (folder / "gcc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    check(hwptq.refused(2), "gcc failed with status 1: ld: error: disk full")


# The output folder


def test_output_inside_a_file(hwptq: Command):
    check(
        hwptq.refused(2, output=hwptq.folder / "data.npz" / "out"),
        "can't be written",
        "give another --output",
    )


def test_output_on_a_read_only_file_system(hwptq: Command):
    check(hwptq.refused(2, output="/proc/hwptq/out"), "can't be written", "give another --output")


def test_output_that_holds_something_else(hwptq: Command):
    folder = hwptq.folder / "out"
    folder.mkdir()
    (folder / "thesis.txt").write_text("the only copy", encoding="utf-8")
    check(hwptq.refused(2), r"out: holds what hwptq didn't write \(thesis.txt\)", "give another --output")
    assert (folder / "thesis.txt").read_text(encoding="utf-8") == "the only copy"


# Options

BAD_OPTIONS = [
    ("--weight-granularity", "layer", "give tensor, channel or group"),
    ("--exclude", "(", "not a regular expression"),
    ("--metric", "no_such_module:metric", "give top1, .* or module:function"),
    ("--preprocess", "absent.toml", r"absent\.toml"),
    ("--recipe", "slow", "slow"),
    ("--budget", "much", "give weights=400kB"),
]


@pytest.mark.parametrize(("option", "value", "part"), BAD_OPTIONS)
def test_bad_options(hwptq: Command, option: str, value: str, part: str):
    check(hwptq.refused(2, option, value), part)


def test_top1_without_labels(hwptq: Command):
    np.savez(hwptq.folder / "data.npz", x=images())
    check(hwptq.refused(2, "--metric", "top1"), "--metric top1: a sample has no label; give the number")


def test_groups_on_a_target_without(hwptq: Command):
    error = hwptq.refused(2, "--weight-granularity", "group", target="riscv64-rvv")
    check(error, "group: no kernel of riscv64-rvv unpacks weights per group")


def test_malformed_preprocess_file(hwptq: Command):
    path = Path(hwptq.folder / "bad.toml")
    path.write_text("[x]\nmaen = 3\n", encoding="utf-8")
    check(hwptq.refused(2, "--preprocess", path), r"bad\.toml", "maen")


@pytest.mark.parametrize(
    "arguments", [["compile"], ["compile", "model.onnx"], ["--no-such-option"], ["nothing"]]
)
def test_wrong_usage(hwptq: Command, arguments: list[str]):
    outcome = hwptq(*arguments)
    assert outcome.code == 2
    assert "Traceback" not in outcome.stderr


def test_an_error_is_one_line_whatever_a_name_holds(hwptq: Command, tmp_path: Path):
    (tmp_path / "preprocess.toml").write_text('[x]\n"a\\nb\\u001b[0m" = 1\n', encoding="utf-8")
    error = hwptq.refused(2, "--preprocess", tmp_path / "preprocess.toml")
    assert error.isprintable()
    assert "x.a b" in error
