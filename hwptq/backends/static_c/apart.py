"""Runs what may not end, as a compiler may on rare input, in processes of its own."""

from __future__ import annotations

import os
import resource
import select
import signal
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import NoReturn

from hwptq.cores import own_cores

_WAITING = 20  # times as long by the clock, on a busy machine
_NUMBER = struct.Struct("<I")
_MOST = 4096  # numbers, which a pipe holds without a reader


class Ended(Enum):
    """How it ended."""

    DONE = auto()
    FAILED = auto()
    OUT_OF_TIME = auto()


def run_apart(work: Callable[[], None], seconds: int) -> Ended:
    """Run `work` in a copy of this process, which may take so much processor time. What it writes stays."""

    def limited() -> None:
        _allow(seconds)
        work()

    with _copy(limited) as copy:
        return copy.wait(seconds * _WAITING)


def share_apart(work: Callable[[int], None], numbers: Sequence[int], seconds: int) -> None:
    """Run `work` of all numbers in copies of this process, on all cores that it has. What they write stays.

    What fails, or takes more processor time than `seconds`, is left undone, and so may be others behind it.
    """
    numbers = numbers[:_MOST]
    waiting, put = os.pipe()
    os.write(put, b"".join(map(_NUMBER.pack, numbers)))
    os.close(put)

    def take() -> None:
        while taken := os.read(waiting, _NUMBER.size):
            _allow(seconds)
            work(*_NUMBER.unpack(taken))

    with ExitStack() as stack:
        stack.callback(os.close, waiting)
        copies = [stack.enter_context(_copy(take)) for _ in range(min(own_cores(), len(numbers)))]
        for copy in copies:
            copy.wait(seconds * _WAITING * len(numbers))


@dataclass(frozen=True)
class _Copy:
    """A running copy of this process: its number, and a pipe that closes with it."""

    pid: int
    closes: int

    def wait(self, seconds: float) -> Ended:
        """How it ends within so much time by the clock."""
        ended, _, _ = select.select([self.closes], [], [], seconds)
        if not ended:
            return Ended.OUT_OF_TIME
        status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT).si_status  # type: ignore[union-attr]
        if status == signal.SIGXCPU:
            return Ended.OUT_OF_TIME
        return Ended.FAILED if status else Ended.DONE


@contextmanager
def _copy(work: Callable[[], None]) -> Iterator[_Copy]:
    """A copy that runs `work`; it ends with the block, also where the user interrupts it."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: none of theirs is needed there
        child = os.fork()
    if not child:
        _work(work)
    os.close(writing)
    try:
        yield _Copy(child, reading)
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)  # nothing to one that has ended
        os.waitpid(child, 0)


def _work(work: Callable[[], None]) -> NoReturn:
    """Ends this process."""
    status = 1
    try:
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        work()
        status = 0
    finally:
        os._exit(status)


def _allow(seconds: int) -> None:
    """So much processor time more."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(spent.ru_utime + spent.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
