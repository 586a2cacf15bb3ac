"""A hwptq command as a benchmark starts it: its processes, and what they have used of the processor."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STAGE = re.compile(r"^(?P<name>[a-z ]+): .*\bin (?P<seconds>[\d.]+) s$", re.MULTILINE)


@dataclass(frozen=True)
class Spent:
    """Of one command: seconds by the clock, processor seconds of its client and of its workers.

    stages: seconds by the clock of the stages that it told of.
    """

    wall: float
    client: float
    workers: float
    stages: dict[str, float]

    @property
    def processor(self) -> float:
        """Processor seconds of all."""
        return self.client + self.workers

    def bound(self, count: int) -> float:
        """How many times sooner `count` workers can end, if nothing but the client holds them up."""
        return self.processor / (self.client + self.workers / count)


class Command:
    """A hwptq command with a cache of its own, and its process tree."""

    def __init__(self, words: Iterable[Any], cache: Path, said: Path):
        """said: a file for what it prints on standard output."""
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"}
        self._before, self._spent_before = time.monotonic(), _children()
        with said.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hwptq", *map(str, words)], env=environment, stdout=stream,
                stderr=subprocess.PIPE, text=True, start_new_session=True,
            )  # fmt: skip
        self._seen: dict[int, float] = {}  # processor seconds of workers
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._sample, daemon=True)
        self._watch.start()

    def wait(self) -> Spent:
        """Until it ends. Exits where it failed."""
        _, told = self.process.communicate()
        wall = time.monotonic() - self._before
        self._done.set()
        self._watch.join()
        if self.process.returncode:
            sys.exit(f"{self.process.args}: exit code {self.process.returncode}: {told[-500:]}")
        workers = sum(self._seen.values())
        stages = {found["name"]: float(found["seconds"]) for found in _STAGE.finditer(told)}
        return Spent(wall, _children() - self._spent_before - workers, workers, stages)

    def workers(self) -> list[int]:
        """Processes of its cluster that compute."""
        found = [pid for pid in _group(self.process.pid) if _is_spawned(pid)]
        return [pid for pid in found if _parent(pid) not in found]

    def kill(self) -> None:
        """End it and all that it started, at once."""
        for pid in _group(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._done.set()
        self._watch.join()
        self.process.communicate()

    def spent(self) -> float:
        """Processor seconds of all its living processes, and of those that they have waited for."""
        found = 0.0
        for pid in _group(self.process.pid):
            with suppress(OSError, IndexError, ValueError):
                found += _seconds(pid)
        return found

    def _sample(self) -> None:
        """Look at the workers until they end: what they have used is known only while they live."""
        while not self._done.wait(0.2):
            for pid in self.workers():
                with suppress(OSError, IndexError, ValueError):
                    self._seen[pid] = _seconds(pid)


def _group(session: int) -> list[int]:
    """The processes of a session, whatever group they are in."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):
            if int(_fields(int(entry.name))[3]) == session:
                found.append(int(entry.name))
    return found


def _children() -> float:
    """Processor seconds of all that this process has started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _is_spawned(pid: int) -> bool:
    """Whether it is a process of multiprocessing's, as Dask's workers are, and what those start."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        return b"multiprocessing" in words and b"spawn_main" in words
    return False


def _seconds(pid: int) -> float:
    """Processor seconds of a process and of those that it has waited for."""
    return sum(map(int, _fields(pid)[11:15])) / os.sysconf("SC_CLK_TCK")


def _parent(pid: int) -> int | None:
    """The process that started it; None where it has ended."""
    with suppress(OSError, IndexError):
        return int(_fields(pid)[1])
    return None


def _fields(pid: int) -> list[str]:
    """What /proc/PID/stat says behind the name; see proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
