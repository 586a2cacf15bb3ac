"""rpc:HOST:PORT and rpc-tracker:HOST:PORT/KEY: a server of TVM's RPC, and one that a tracker knows."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hwptq.backends.program import Program
from hwptq.errors import HwptqError, InputError
from hwptq.executors.executor import Sample

from .board import Board, LostConnection

_LIBRARY = "model.so"
SECONDS = 60  # that a session may last without a word


class Rpc(Board):
    """The shared library for TVM's runtime, which runs in the server's process there."""

    name = "rpc"
    _place = re.compile(r"(?P<host>[^/]+):(?P<port>\d+)")
    _form = "HOST:PORT"
    _answers = "server"

    def __init__(self, program: Program, place: str = ""):
        super().__init__(program, place)
        found = self._place.fullmatch(place)
        if found is None:
            raise InputError(f"{self.address}: give {self.name}:{self._form}")
        self._where = found.groupdict()

    @classmethod
    def why_not(cls, program: Program) -> str | None:
        if program.state is not None:
            return f"{_LIBRARY} keeps no caches: compile with --kv-cache outside"
        if program.program is not None and (program.program.parent / _LIBRARY).is_file():
            return None
        return f"there is no {_LIBRARY}: the target has none, or parts of the model stay in float"

    @property
    def code(self) -> Path:
        return Path(self.program.command[-1]).parent / _LIBRARY

    @property
    def description(self) -> str:
        return f"{self.address}: {_LIBRARY} in TVM's runtime"

    def live(self, samples: Iterator[Sample]) -> Iterator[list[np.ndarray]]:
        for sample in samples:
            yield self._once(sample)

    def times(self, samples: Sequence[Sample], runs: int) -> list[float]:
        """By the clock of the server, without the way there; the first samples take turns."""
        found: list[float] = []
        kinds = min(len(samples), runs)
        for i in range(kinds):
            share = runs // kinds + (i < runs % kinds)
            arguments = self._arguments(samples[i])
            try:
                timer = self._machine.time_evaluator("main", self._session.cpu(), number=1, repeat=share + 1)
                found += [1e3 * seconds for seconds in timer(*arguments).results[1:]]
            except (RuntimeError, OSError) as error:
                raise self._failed(error) from error
        return found

    def _once(self, sample: Sample) -> list[np.ndarray]:
        try:
            return results(self._machine, "main", self._arguments(sample))
        except (RuntimeError, OSError) as error:
            raise self._failed(error) from error

    def _arguments(self, sample: Sample) -> list[Any]:
        import tvm

        device = self._session.cpu()
        try:
            return [
                tvm.runtime.tensor(np.ascontiguousarray(sample[t.name], dtype=t.dtype), device)
                for t in self.program.inputs
            ]
        except (RuntimeError, OSError) as error:
            raise self._failed(error) from error

    @cached_property
    def _machine(self) -> Any:
        """The library, copied and loaded there."""
        from tvm import relax

        try:
            self._session.upload(str(self.code))
            return relax.VirtualMachine(self._session.load_module(_LIBRARY), self._session.cpu())
        except (RuntimeError, OSError) as error:
            raise self._failed(error) from error

    @cached_property
    def _session(self) -> Any:
        try:
            return self._connected()
        except (RuntimeError, OSError) as error:
            raise LostConnection(
                f"{self.address}: no {self._answers} answers there: is it started, and are host and port its "
                "own? One with a key is reached by its tracker"
            ) from error

    def _connected(self) -> Any:
        from tvm import rpc

        return rpc.connect(self._where["host"], int(self._where["port"]), session_timeout=SECONDS)

    def _failed(self, error: Exception) -> HwptqError:
        """The connection is lost, unless the code failed there."""
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        last = lines[-1] if lines else type(error).__name__
        return self.lost("the server ended it" if last.startswith("Check failed") else last)

    def close(self) -> None:
        if session := self.__dict__.pop("_session", None):
            self.__dict__.pop("_machine", None)
            try:
                session.remove(_LIBRARY)
            except (RuntimeError, OSError):
                return


class RpcTracker(Rpc):
    """The server that a tracker has free for a key."""

    name = "rpc-tracker"
    _place = re.compile(r"(?P<host>[^/]+):(?P<port>\d+)/(?P<key>.+)")
    _form = "HOST:PORT/KEY"
    _answers = "tracker, or no free server of it,"

    @classmethod
    def parts(cls, on: str) -> tuple[str, int, str]:
        """Host, port and key of rpc-tracker:HOST:PORT/KEY. Raises InputError for anything else."""
        name, _, place = on.partition(":")
        found = cls._place.fullmatch(place) if name == cls.name else None
        if found is None:
            raise InputError(f"{on}: give {cls.name}:{cls._form}")
        return found["host"], int(found["port"]), found["key"]

    def _connected(self) -> Any:
        tracker = tracker_at(self._where["host"], int(self._where["port"]))
        return tracker.request(self._where["key"], session_timeout=SECONDS)


def tracker_at(host: str, port: int) -> Any:
    """A tracker. Raises OSError at once where none listens: TVM asks again for a minute."""
    from tvm import rpc

    socket.create_connection((host, port), SECONDS).close()
    return rpc.connect_tracker(host, port)


def results(machine: Any, function: str, arguments: Sequence[Any]) -> list[np.ndarray]:
    """What a function of a virtual machine over there gives: a tuple can't come as a whole."""
    import tvm

    machine.set_input(function, *arguments)
    machine.invoke_stateful(function)
    given = machine.get_outputs(function)
    arrays = [given] if isinstance(given, tvm.runtime.Tensor) else list(given)
    return [np.ascontiguousarray(array.numpy()) for array in arrays]
