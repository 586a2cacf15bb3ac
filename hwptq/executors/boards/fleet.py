"""All boards that a tracker of TVM's RPC has free for a key."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwptq.backends.program import Tensor
from hwptq.errors import HwptqError

from .board import LostConnection
from .rpc import SECONDS, RpcTracker, results, tracker_at

_PATIENCE = 5  # seconds


@dataclass(frozen=True)
class FleetBoard:
    """A board of a fleet, held until the fleet is left. address: HOST:PORT of its server."""

    address: str
    session: Any

    def load(self, library: Path, number: int) -> LoadedLibrary:
        """A library copied there; number: of its file, so that several can be there at once."""
        from tvm import relax

        name = f"model{number}.so"
        try:
            self.session.upload(str(library), target=name)
            machine = relax.VirtualMachine(self.session.load_module(name), self.session.cpu())
        except (RuntimeError, OSError) as error:
            raise self.lost(error) from error
        return LoadedLibrary(self, machine)

    def lost(self, error: Exception) -> LostConnection:
        """What is raised for an error of TVM's."""
        lines = str(error).strip().splitlines()
        why = lines[-1] if lines else "no reason"
        return LostConnection(f"{self.address}: the connection is lost ({why})")


@dataclass(frozen=True)
class LoadedLibrary:
    """A library on a board."""

    board: FleetBoard
    machine: Any

    def call(
        self, function: str, inputs: Sequence[Tensor], sample: Mapping[str, np.ndarray]
    ) -> list[np.ndarray]:  # fmt: skip
        """What a function gives for a sample. Raises LostConnection."""
        import tvm

        device = self.board.session.cpu()
        try:
            given = [
                tvm.runtime.tensor(np.ascontiguousarray(sample[t.name], t.dtype), device) for t in inputs
            ]
            return results(self.machine, function, given)
        except (RuntimeError, OSError) as error:
            raise self.board.lost(error) from error


def _free(tracker: Any, key: str) -> int:
    """The number of free boards. One that has just been left, or started, is so after a moment."""
    end = time.monotonic() + _PATIENCE
    while True:
        free = int(tracker.summary()["queue_info"].get(key, {"free": 0})["free"])
        if free or time.monotonic() > end:
            return free
        time.sleep(0.05)


@contextmanager
def fleet(on: str) -> Iterator[list[FleetBoard]]:
    """Every free board of rpc-tracker:HOST:PORT/KEY.

    Raises InputError for another place, HwptqError where no tracker answers or it has none free.
    """
    from tvm import rpc
    from tvm.rpc import base

    host, port, key = RpcTracker.parts(on)
    try:
        tracker = tracker_at(host, port)
        free = _free(tracker, key)
    except (RuntimeError, OSError) as error:
        raise HwptqError(f"{on}: no tracker answers there") from error
    if not free:
        raise HwptqError(f"{on}: the tracker has no board free for {key!r}")
    boards = []
    for _ in range(free):
        base.sendjson(tracker._sock, [base.TrackerCode.REQUEST, key, "", 1])
        status, value = base.recvjson(tracker._sock)
        if status != base.TrackerCode.SUCCESS:
            raise HwptqError(f"{on}: the tracker refuses a board ({value})")
        where, number, match = value
        session = rpc.connect(where, number, match, session_timeout=SECONDS)
        boards.append(FleetBoard(f"{where}:{number}", session))
    yield sorted(boards, key=lambda board: board.address)
