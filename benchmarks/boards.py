"""Compiled models on boards that are this machine: all bits, through a connection that is cut in the middle.

    python benchmarks/boards.py OUT DATA [OUT DATA …]

OUT: output folders for a target of this machine; DATA: samples, of which the first 100 are run. Each runs by
ssh (an sshd of its own on 127.0.0.1), by TVM's RPC, and by a tracker. After half of the samples the
connection is cut; the second run must go on from there, and all outputs must be those of this process.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tvm import rpc

import hwptq
from hwptq.answers import data_for
from hwptq.executors.boards.board import LostConnection

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "boards"))
from machines import free_port, ssh_server

SAMPLES = 100


@dataclass(frozen=True)
class Place:
    """A board: its name for --on, and what cuts the connection; new ones may come at once."""

    on: str
    cut: Callable[[], None]


@contextmanager
def by_ssh() -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as folder, ssh_server(Path(folder)) as server:
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{server.bin}:{before}"
        yield Place("ssh:board", server.cut)
        os.environ["PATH"] = before


@contextmanager
def by_rpc(tracker: Any = None) -> Iterator[Place]:
    """A server that starts anew when the connection is cut."""
    port, key = free_port(), "board"
    known = {"tracker_addr": ("127.0.0.1", tracker.port), "key": key} if tracker else {}

    def start() -> Any:
        return rpc.Server("127.0.0.1", port, port + 1, silent=True, **known)

    servers = [start()]

    def cut() -> None:
        servers[-1].terminate()
        servers.append(start())

    yield Place(f"rpc-tracker:127.0.0.1:{tracker.port}/{key}" if tracker else f"rpc:127.0.0.1:{port}", cut)
    servers[-1].terminate()


@contextmanager
def by_tracker() -> Iterator[Place]:
    from tvm.rpc.tracker import Tracker

    first = free_port()
    tracker = Tracker("127.0.0.1", first, first + 50, silent=True)
    with by_rpc(tracker) as place:
        yield place
    tracker.terminate()


def run(folder: Path, data: str, place: Place) -> str:
    """A line of the table."""
    here = hwptq.load(folder)
    samples = [sample.inputs for sample in data_for(here, data, None, SAMPLES)]
    wanted = list(here.run_stream(samples))
    got: list[Any] = []

    def until_cut() -> Iterator[Any]:
        for i, sample in enumerate(samples):
            if i == len(samples) // 2:
                while not got:  # the board may not have begun
                    time.sleep(0.01)
                place.cut()
            yield sample

    there = hwptq.load(folder, place.on)
    said = "was not cut"
    try:
        for outputs in there.run_stream(until_cut()):
            got.append(outputs)
    except LostConnection as error:
        said = str(error)
    there.close()
    again = hwptq.load(folder, place.on)
    begin = time.perf_counter()
    found = list(again.run_stream(samples))
    seconds = time.perf_counter() - begin
    again.close()
    values = differ = 0
    for a, b in zip(wanted, found, strict=True):
        for name, array in a.items():
            values += array.size
            differ += int(np.count_nonzero(array.view(np.uint8) != b[name].view(np.uint8)))
    print(f"  {said}")
    kind = place.on.partition(":")[0]
    return (
        f"{folder.name:12} {kind:12} cut after {len(got):3} of {len(samples)}, the rest in {seconds:.1f} s: "
        f"{differ} of {values} values differ"
    )


def main(words: Sequence[str]) -> None:
    lines = []
    for folder, data in zip(words[::2], words[1::2], strict=True):
        for reach in (by_ssh, by_rpc, by_tracker):
            with tempfile.TemporaryDirectory() as cache, reach() as place:
                os.environ["XDG_CACHE_HOME"] = cache
                lines.append(run(Path(folder), data, place))
    print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
