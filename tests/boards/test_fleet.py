"""Four servers under one tracker, of which one has a wrong kernel: it is found, and the tensor named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from machines import free_port, wait_for_boards
from onnx import numpy_helper
from onnx_models import model, node, normal, save

import hwptq as package
from hwptq.errors import InputError
from hwptq.executors.boards.rpc import RpcTracker

TARGET = "x86-64-avx2"
WRONG = "second"  # the layer whose kernel is wrong


@pytest.fixture(scope="module")
def outs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A compiled model, and the same with another weight in one layer, and no other difference."""
    folder = tmp_path_factory.mktemp("fleet")
    nodes = [node("Conv", "x w", "a", "first"), node("Relu", "a", "b", "relu"),
             node("Conv", "b v", "c", WRONG), node("Conv", "c u", "y", "third")]  # fmt: skip
    weights = {"w": normal(0, 8, 3, 3, 3), "v": normal(1, 8, 8, 1, 1), "u": normal(2, 4, 8, 1, 1)}
    right = save(model(nodes, {"x": (1, 3, 6, 6)}, weights), folder)
    data = [{"x": normal(3, 1, 3, 6, 6)}, {"x": normal(4, 1, 3, 6, 6)}]
    words: Any = {"target": TARGET, "calibration_data": data, "recipe": "fast"}
    package.compile(right, output=folder / "right", **words)
    qdq = onnx.load(folder / "right" / "model.qdq.onnx")
    codes = max((t for t in qdq.graph.initializer if t.dims[:2] == [8, 8]), key=lambda t: len(t.raw_data))
    codes.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(codes), codes.name))
    onnx.save(qdq, folder / "wrong.onnx")
    package.compile(folder / "wrong.onnx", target=TARGET, evaluation_data=data, output=folder / "wrong")
    return folder / "right", folder / "wrong"


@pytest.fixture
def tracker(outs: tuple[Path, Path]) -> Iterator[str]:
    """--on, with three good boards and one wrong one."""
    rpc, trackers = pytest.importorskip("tvm.rpc.server"), pytest.importorskip("tvm.rpc.tracker")
    port = free_port()
    serving = trackers.Tracker("127.0.0.1", port, port + 50, silent=True)
    words: Any = {"key": "board", "tracker_addr": ("127.0.0.1", serving.port), "silent": True}
    good = [rpc.Server("127.0.0.1", (at := free_port()), at + 20, **words) for _ in range(3)]
    wrong = rpc.Server(
        "127.0.0.1",
        (at := free_port()),
        at + 20,
        server_init_callback=_planted(outs[1] / "model.so"),
        **words,
    )
    wait_for_boards(serving.port, "board", 4)
    yield f"rpc-tracker:127.0.0.1:{serving.port}/board {wrong.port}"
    for server in (*good, wrong, serving):
        server.terminate()


def _planted(library: Path) -> Callable[[], None]:
    """What lets a server load `library` in place of any other; it is sent to the server's process."""

    def plant() -> None:
        from tvm.rpc import server

        load = server._load_module
        server._load_module = lambda path, *rest: load(str(library), *rest)

    return plant


def test_the_wrong_board_is_found(tracker: str, outs: tuple[Path, Path], hwptq: Any) -> None:
    on, port = tracker.split()
    found = hwptq("verify", outs[0], "--on", on, "--json")
    assert found.code == 6
    rows = json.loads(found.stdout)["rows"]
    assert len(rows) == 4
    wrong = [row for row in rows if row["mismatches"]]
    assert [row["board"] for row in wrong] == [f"127.0.0.1:{port}"]
    assert wrong[0]["differs"] == f"layer {WRONG}"
    assert f"first layer {WRONG}" in found.stderr
    assert len({row["golden"] for row in rows if not row["mismatches"]}) == 1
    assert wrong[0]["golden"] not in {row["golden"] for row in rows if not row["mismatches"]}


def test_taps_are_the_tensors_of_main(outs: tuple[Path, Path]) -> None:
    import tvm
    from tvm import relax

    library = relax.VirtualMachine(tvm.runtime.load_module(str(outs[0] / "model.so")), tvm.cpu())
    report = json.loads((outs[0] / "report.json").read_text())
    x = tvm.runtime.tensor(normal(3, 1, 3, 6, 6))
    taps = [array.numpy() for array in library["taps"](x)]
    assert len(taps) == len(report["tensors"]) > 2
    assert np.array_equal(library["main"](x).numpy(), taps[-1])


@pytest.mark.parametrize("place", ["rpc:1.2.3.4:5", "rpc-tracker:here", "ssh:board"])
def test_what_is_no_tracker(place: str) -> None:
    with pytest.raises(InputError, match="rpc-tracker:HOST:PORT/KEY"):
        RpcTracker.parts(place)
