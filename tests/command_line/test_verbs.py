"""hwptq verify and hwptq bench, on an output folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import TARGET, Command

from hwptq.report.golden import write_golden


@pytest.fixture
def out(demo: Any, tmp_path: Path) -> Path:
    """A copy of the compiled demo."""
    return Path(shutil.copytree(demo(TARGET).folder, tmp_path / "copy"))


def test_verify_finds_the_stored_outputs_again(hwptq: Command, out: Path):
    outcome = hwptq("verify", out, "--json")
    found = json.loads(outcome.stdout)
    assert (outcome.code, found["mismatches"]) == (0, 0)
    assert found["values"] > found["samples"] > 0


def test_verify_says_that_one_bit_differs(hwptq: Command, out: Path):
    with np.load(out / "golden.npz") as stored:
        arrays = dict(stored)
    arrays["output_0"].view(np.uint8).flat[0] ^= 1
    write_golden(out / "golden.npz", arrays)
    outcome = hwptq("verify", out)
    assert outcome.code == 6
    assert "1 of" in outcome.error


@pytest.mark.parametrize("verb", ["verify", "bench"])
def test_what_is_stored_must_be_of_the_model(hwptq: Command, out: Path, verb: str):
    write_golden(out / "golden.npz", {"other": np.zeros(3)})
    outcome = hwptq(verb, out)
    assert outcome.code == 2
    assert "golden.npz: holds no samples of this model" in outcome.error


@pytest.mark.parametrize("verb", ["verify", "bench"])
def test_a_folder_that_is_no_output(hwptq: Command, verb: str):
    outcome = hwptq(verb, hwptq.folder / "none")
    assert outcome.code == 2
    assert "no output folder of hwptq" in outcome.error


def test_bench_gives_quartiles_in_order(hwptq: Command, out: Path):
    outcome = hwptq("bench", out, "--runs", "9", "--json")
    assert outcome.code == 0, outcome.stderr
    found = json.loads(outcome.stdout)
    times = [found[k] for k in ("least", "lower_quartile", "median", "upper_quartile", "most")]
    assert found["runs"] == 9
    assert times[0] > 0
    assert times == sorted(times)


def test_bench_refuses_times_that_are_not_of_the_code(
    hwptq: Command, out: Path, monkeypatch: pytest.MonkeyPatch
):
    from hwptq.executors.in_process import InProcess

    monkeypatch.setattr(InProcess, "timed", False)
    outcome = hwptq("bench", out)
    assert outcome.code == 2
    assert "bench it on the device" in outcome.error


def test_bench_counts_instructions_under_an_emulator(hwptq: Command, demo: Any):
    folder = demo("arm-cortex-a").folder
    found = json.loads(hwptq("bench", folder, "--runs", "2", "--json").stdout)
    assert (found["unit"], found["runs"]) == ("instructions", 2)
    macs = sum(row["macs"] for row in json.loads((folder / "report.json").read_text())["bits"])
    assert macs / 64 < found["least"] <= found["most"] < 10 * macs
    assert "instructions, quartiles" in hwptq("bench", folder, "--runs", "1").stdout
