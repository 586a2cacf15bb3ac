"""TVM's RPC on loopback: a server, and one behind a tracker."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from machines import free_port, wait_for_boards

import hwptq as package
from hwptq.errors import InputError
from hwptq.executors.boards.board import LostConnection
from hwptq.executors.boards.rpc import Rpc
from hwptq.executors.executor import executor_for
from hwptq.golden_check import golden_samples

TARGET = "x86-64-avx2"


@pytest.fixture(params=["rpc", "rpc-tracker"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Any]]:
    """--on, and the server."""
    rpc = pytest.importorskip("tvm.rpc.server")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    port = free_port()
    if request.param == "rpc":
        server = rpc.Server("127.0.0.1", port, port + 50, silent=True)
        yield f"rpc:127.0.0.1:{server.port}", server
        server.terminate()
        return
    tracker_module = pytest.importorskip("tvm.rpc.tracker")
    tracker = tracker_module.Tracker("127.0.0.1", port, port + 50, silent=True)
    server = rpc.Server(
        "127.0.0.1", port + 60, port + 110, key="board", tracker_addr=("127.0.0.1", tracker.port), silent=True
    )
    wait_for_boards(tracker.port, "board", 1)
    yield f"rpc-tracker:127.0.0.1:{tracker.port}/board", server
    server.terminate()
    tracker.terminate()


@pytest.fixture
def out(demo: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo(TARGET).folder, tmp_path / "copy"))


def test_verify_and_bench(place: tuple[str, Any], out: Path, hwptq: Any) -> None:
    on, _ = place
    verified = hwptq("verify", out, "--on", on, "--json")
    assert verified.code == 0, verified.stderr
    assert json.loads(verified.stdout)["mismatches"] == 0
    times = json.loads(hwptq("bench", out, "--on", on, "--runs", "6", "--json").stdout)
    assert times["runs"] == 6
    assert 0 < times["least"] <= times["median"] <= times["most"] < 50


def test_a_cut_connection_is_one_line_and_the_next_run_goes_on(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rpc = pytest.importorskip("tvm.rpc.server")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    port = free_port()
    server = rpc.Server("127.0.0.1", port, port + 1, silent=True)
    model = package.load(out, f"rpc:127.0.0.1:{port}")
    stored = list(golden_samples(model))

    def until_cut() -> Iterator[Any]:
        for i, (inputs, _) in enumerate(stored):
            if i == 4:
                server.terminate()
            yield inputs

    got: list[Any] = []
    with pytest.raises(LostConnection, match=r"lost after 4 samples.*run the same command again"):
        got.extend(model.run_stream(until_cut()))
    model.close()
    server = rpc.Server("127.0.0.1", port, port + 1, silent=True)
    again = package.load(out, f"rpc:127.0.0.1:{port}")
    asked: list[Any] = []
    live = Rpc.live
    monkeypatch.setattr(
        Rpc, "live", lambda self, samples: live(self, map(lambda s: asked.append(s) or s, samples))
    )
    found = list(again.run_stream(inputs for inputs, _ in stored))
    again.close()
    server.terminate()
    assert (len(got), len(asked)) == (4, len(stored) - 4)
    for outputs, (_, wanted) in zip(found, stored, strict=True):
        assert all(np.array_equal(outputs[name], array) for name, array in wanted.items())


def test_a_server_that_is_gone_is_one_line(out: Path, hwptq: Any) -> None:
    outcome = hwptq("verify", out, "--on", f"rpc:127.0.0.1:{free_port()}")
    assert outcome.code == 2
    assert "no server answers there: is it started" in outcome.error


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_a_tracker_that_is_gone_is_not_waited_for(out: Path, hwptq: Any, command: str) -> None:
    begin = time.monotonic()
    outcome = hwptq(command, out, "--on", f"rpc-tracker:127.0.0.1:{free_port()}/board")
    assert outcome.code == 2
    assert "no tracker" in outcome.error
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize("name", ["rpc:host", "rpc:host:x", "rpc-tracker:host:9190"])
def test_a_place_must_be_one(demo: Any, name: str) -> None:
    with pytest.raises(InputError, match="give rpc"):
        executor_for(demo(TARGET).program, name)


@pytest.mark.parametrize("name", ["sssh:host", "process:host", "ssh:"])
def test_there_must_be_such_an_executor(demo: Any, name: str) -> None:
    with pytest.raises(InputError, match=r"no executor.*ssh:…"):
        executor_for(demo(TARGET).program, name)
