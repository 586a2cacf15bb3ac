"""ssh and adb, on this machine: the same bits, times, tidied up, and a connection that is cut."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from machines import adb_stand_in, pull_cable, ssh_server, why_no_sshd

import hwptq as package
from hwptq.backends.program import Machine as Processor
from hwptq.errors import HwptqError
from hwptq.executors.boards.adb import Adb
from hwptq.executors.boards.board import LostConnection
from hwptq.executors.boards.shell import Shell
from hwptq.executors.boards.ssh import Ssh
from hwptq.executors.executor import executor_for
from hwptq.golden_check import golden_samples

TARGET = "x86-64-avx2"
DIGITS = Path(__file__).parents[2] / "examples" / "digits"


class Machine:
    """A machine on this one: its --on, its class, how its connection is cut, and where its files lie."""

    def __init__(self, on: str, board: type[Shell], cut: Callable[[], None], scratch: Path):
        self.on, self.board, self.cut, self.scratch = on, board, cut, scratch

    def files(self) -> set[str]:
        return {path.name for path in self.scratch.glob("hwptq-[0-9a-f]*")}


@pytest.fixture(params=["ssh", "adb"])
def machine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machine]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "adb":
        place = adb_stand_in(tmp_path, "emulator-5554")
        monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
        yield Machine("adb:emulator-5554", Adb, lambda: pull_cable(tmp_path), tmp_path / "tmp")
        return
    if (reason := why_no_sshd()) is not None:
        pytest.skip(reason)
    monkeypatch.setattr(Ssh, "scratch", str(tmp_path))
    with ssh_server(tmp_path) as server:
        monkeypatch.setenv("PATH", f"{server.bin}:{os.environ['PATH']}")
        yield Machine("ssh:board", Ssh, server.cut, tmp_path)


@pytest.fixture
def out(demo: Any, tmp_path: Path) -> Path:
    """A copy of the compiled demo."""
    return Path(shutil.copytree(demo(TARGET).folder, tmp_path / "copy"))


def test_verify_bench_and_run(machine: Machine, out: Path, hwptq: Any) -> None:
    verified = json.loads(hwptq("verify", out, "--on", machine.on, "--json").stdout)
    assert (verified["mismatches"], verified["executor"].partition(": ")[0]) == (0, machine.on)
    assert verified["values"] > 0
    times = json.loads(hwptq("bench", out, "--on", machine.on, "--runs", "7", "--json").stdout)
    assert times["runs"] == 7
    assert 0 < times["least"] <= times["median"] <= times["most"] < 50
    data = DIGITS / "evaluation.npz"
    there = json.loads(hwptq("run", out, data, "--samples", "5", "--on", machine.on, "--json").stdout)
    here = json.loads(hwptq("run", out, data, "--samples", "5", "--json").stdout)
    assert there["samples"] == here["samples"]
    assert machine.files() == set()


def test_a_cut_connection_is_one_line_and_the_next_run_goes_on(
    machine: Machine, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = package.load(out, machine.on)
    stored = list(golden_samples(model))
    asked: list[int] = []
    live = machine.board.live

    def counting(self: Shell, samples: Iterator[Any]) -> Iterator[Any]:
        asked.append(0)
        for outputs in live(self, samples):
            asked[-1] += 1
            yield outputs

    monkeypatch.setattr(machine.board, "live", counting)

    def until_cut() -> Iterator[Any]:
        for i, (inputs, _) in enumerate(stored):
            if i == 5:
                end = time.monotonic() + 30
                while asked[0] < 3 and time.monotonic() < end:  # until then it may not have begun
                    time.sleep(0.01)
                machine.cut()
            yield inputs

    got: list[Any] = []

    with pytest.raises(LostConnection, match=r"connection is lost.*run the same command again"):
        got.extend(model.run_stream(until_cut()))
    model.close()
    (out.parent / "gone").unlink(missing_ok=True)
    again = package.load(out, machine.on)
    found = list(again.run_stream(inputs for inputs, _ in stored))
    again.close()
    assert len(got) == asked[0] <= 5
    assert asked == [len(got), len(stored) - len(got)]
    for outputs, (_, wanted) in zip(found, stored, strict=True):
        assert all(np.array_equal(outputs[name], array) for name, array in wanted.items())
    assert machine.files() == set()


def test_compile_verifies_on_the_board(tmp_path: Path, hwptq: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{adb_stand_in(tmp_path, 'here')}:{os.environ['PATH']}")
    files = ("--calibration-data", DIGITS / "calibration.npz", "--preprocess", DIGITS / "preprocess.toml")
    outcome = hwptq(
        "compile", DIGITS / "digits.onnx", "--target", TARGET, *files, "--samples", "4", "--recipe", "fast",
        "--output", tmp_path / "made", "--on", "adb:here", "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.stderr
    exact = json.loads(outcome.stdout)["bit_exact"]
    assert (exact["mismatches"], exact["samples"]) == (0, 4)
    assert exact["executor"].startswith("adb:here")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_code_for_another_processor_is_not_copied(machine: Machine, out: Path) -> None:
    program = replace(package.load(out).program, machine=Processor("aarch64"))
    running = executor_for(program, machine.on)
    with pytest.raises(HwptqError, match="and this is code for aarch64"):
        running.run(next(golden_samples(package.load(out)))[0])
    assert machine.files() == set()


def test_a_machine_that_is_not_there(machine: Machine, out: Path, hwptq: Any) -> None:
    wrong = machine.on.partition(":")[0] + ":nowhere.invalid"
    outcome = hwptq("verify", out, "--on", wrong)
    assert outcome.code == 2
    assert "connection is lost" in outcome.error
