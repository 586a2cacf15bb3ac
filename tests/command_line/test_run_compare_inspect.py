"""hwptq run, compare and inspect, on output folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import TARGET, Command
from hypothesis import given
from hypothesis import strategies as st

from hwptq.data.preprocess import InputTransform, Padding, Preprocess, load_preprocess
from hwptq.data.preprocess_text import preprocess_text
from hwptq.report.golden import write_golden

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
sizes = st.integers(1, 500)
modes = st.sampled_from(["edge", "constant"])
numbers = st.floats(-1e6, 1e6, allow_subnormal=False)
transforms = st.builds(
    InputTransform,
    layout=st.sampled_from([None, "NCHW", "NHWC"]),
    channels=st.sampled_from(["RGB", "BGR"]),
    resize=st.none() | sizes | st.tuples(sizes, sizes),
    crop=st.none() | st.tuples(sizes, sizes),
    pad=st.none() | st.builds(Padding, sizes, sizes, sizes, sizes, modes, numbers),
    mean=st.none() | st.lists(numbers, min_size=1, max_size=3).map(tuple),
    std=st.none() | st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=3).map(tuple),
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), transforms, min_size=1, max_size=3))
def test_a_preprocess_file_comes_back(tmp_path_factory: Any, inputs: dict[str, InputTransform]):
    path = tmp_path_factory.getbasetemp() / "round.toml"
    path.write_text(preprocess_text(Preprocess(inputs)), encoding="utf-8", newline="")
    assert load_preprocess(path).inputs == inputs


@pytest.fixture
def out(demo: Any, tmp_path: Path) -> Path:
    """A copy of the compiled demo."""
    return Path(shutil.copytree(demo(TARGET).folder, tmp_path / "copy"))


def test_run_gives_the_golden_outputs(hwptq: Command, out: Path):
    """The demo reads what is stored by its preprocess file; golden inputs are preprocessed already."""
    with np.load(out / "golden.npz") as stored:
        given, wanted = stored["input"], stored["output_0"]
    np.savez(hwptq.folder / "data.npz", x=given)
    (hwptq.folder / "none.toml").write_text("[x]\n", encoding="utf-8")
    written = hwptq.folder / "outputs.npz"
    outcome = hwptq(
        "run", out, hwptq.folder / "data.npz", "--preprocess", hwptq.folder / "none.toml", "--output", written
    )
    assert outcome.code == 0, outcome.stderr
    with np.load(written) as found:
        assert found["logits"].tobytes() == wanted.tobytes()


def test_run_preprocesses_as_compile_did(hwptq: Command, out: Path):
    assert (out / "preprocess.toml").is_file()
    outcome = hwptq("run", out, DIGITS / "evaluation.npz", "--samples", "20", "--top", "2", "--json")
    found = json.loads(outcome.stdout)
    assert len(found["samples"]) == 20
    assert found["top1"] >= 95
    assert all(len(row["top"]) == 2 and row["top"][0][1] >= row["top"][1][1] for row in found["samples"])


def test_run_shows_a_line_a_sample(hwptq: Command, out: Path):
    outcome = hwptq("run", out, DIGITS / "evaluation.npz", "--samples", "3")
    lines = outcome.stdout.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("0 (label ")
    assert "top-1" in lines[3]
    assert len(hwptq("run", out, DIGITS / "evaluation.npz", "--samples", "3", "-q").stdout.splitlines()) == 3


@pytest.mark.parametrize("data", ["absent.npz", "model.onnx"])
def test_run_refuses_what_is_no_data(hwptq: Command, out: Path, data: str):
    outcome = hwptq("run", out, hwptq.folder / data)
    assert outcome.code == 2
    assert data in outcome.error


def test_compare_counts_values_that_differ(hwptq: Command, out: Path):
    first = Path(shutil.copytree(out, hwptq.folder / "first"))
    with np.load(first / "golden.npz") as stored:
        arrays = dict(stored)
    arrays["output_0"].flat[[1, 5]] += 1
    write_golden(first / "golden.npz", arrays)
    found = json.loads(hwptq("compare", first, out, "--runs", "3", "--json").stdout)["compared"]
    assert [row["differing"] for row in found] == [2, 2]
    assert found[1]["compared"] == arrays["output_0"].size
    assert found[1]["dtypes"] == {"int8 × int8": 1.0}
    assert found[1]["milliseconds"] > 0
    shown = hwptq("compare", out, out, "--runs", "0")
    assert shown.code == 0
    assert "outputs that differ" in shown.stdout


def test_compare_says_where_models_take_other_inputs(hwptq: Command, out: Path):
    assert hwptq.compile("--recipe", "fast").code == 0
    other = hwptq.folder / "out"
    found = json.loads(hwptq("compare", out, other, "--runs", "0", "--json").stdout)["compared"]
    assert found[1]["differing"] is None
    assert "its inputs are not those of" in found[1]["why"]


def test_compare_needs_two(hwptq: Command, out: Path):
    outcome = hwptq("compare", out)
    assert outcome.code == 2
    assert "two output folders" in outcome.error


def test_inspect_knows_the_scales_of_the_codes(hwptq: Command, out: Path):
    found = json.loads(hwptq("inspect", out, "--json").stdout)
    (given,), (output,) = found["inputs"], found["outputs"]
    assert (given["name"], given["shape"], given["codes"]) == ("input", [1, 1, 8, 8], "int8")
    assert 0 < given["scale"] < 1
    assert output["codes"] == "int8"
    with np.load(out / "golden.npz") as stored:
        codes = stored["output_0"] / np.float32(output["scale"]) + output["zero_point"]
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-3)
    assert {row["name"] for row in found["layers"]} >= {"stem/conv", "classifier"}
    assert found["files"]["golden.npz"] == (out / "golden.npz").stat().st_size
    assert "stem/conv" in hwptq("inspect", out).stdout


@pytest.mark.parametrize("verb", ["run", "inspect", "compare"])
def test_a_folder_must_be_an_output(hwptq: Command, verb: str):
    more = [] if verb == "inspect" else [hwptq.folder / "data.npz"]
    outcome = hwptq(verb, hwptq.folder / "none", *more)
    assert outcome.code == 2
    assert "no output folder of hwptq" in outcome.error
