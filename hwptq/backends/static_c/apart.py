"""Runs what may not end, as a compiler may on rare input, in processes of its own."""

from __future__ import annotations

import os
import resource
import select
import signal
import struct
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
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

    def limited(_: int) -> None:
        _allow(seconds)
        work()

    with _copy(limited) as copy:
        return copy.wait(seconds * _WAITING)[0]


def share_apart(work: Callable[[int], None], numbers: Sequence[int], seconds: int) -> set[int]:
    """Run `work` of all numbers in copies of this process, on all cores that it has. What they write stays.

    What fails, or takes more processor time than `seconds`, is left undone, and so may be others behind it.
    Returns the numbers that took more.
    """
    numbers = numbers[:_MOST]
    waiting, put = os.pipe()
    os.write(put, b"".join(map(_NUMBER.pack, numbers)))
    os.close(put)

    def take(tells: int) -> None:
        while taken := os.read(waiting, _NUMBER.size):
            os.write(tells, taken)
            _allow(seconds)
            work(*_NUMBER.unpack(taken))

    with ExitStack() as stack:
        stack.callback(os.close, waiting)
        copies = [stack.enter_context(_copy(take)) for _ in range(min(own_cores(), len(numbers)))]
        ends = [copy.wait(seconds * _WAITING * len(numbers)) for copy in copies]
        slow = [told[-_NUMBER.size :] for ended, told in ends if ended is Ended.OUT_OF_TIME and told]
        return {_NUMBER.unpack(last)[0] for last in slow}


@dataclass(frozen=True)
class _Copy:
    """A running copy of this process: its number, and a pipe by which it tells how far it is."""

    pid: int
    tells: int

    def wait(self, seconds: float) -> tuple[Ended, bytes]:
        """How it ends within so much time by the clock, and what it has told."""
        told, end = b"", time.monotonic() + seconds
        while True:
            ready, _, _ = select.select([self.tells], [], [], max(end - time.monotonic(), 0))
            if not ready:
                return Ended.OUT_OF_TIME, told
            if not (more := os.read(self.tells, 2**16)):
                return self._ended(), told
            told += more

    def _ended(self) -> Ended:
        status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT).si_status  # type: ignore[union-attr]
        if status == signal.SIGXCPU:
            return Ended.OUT_OF_TIME
        return Ended.FAILED if status else Ended.DONE


@contextmanager
def _copy(work: Callable[[int], None]) -> Iterator[_Copy]:
    """A copy that runs `work`, with what it tells by; it ends with the block, also where the user interrupts
    it.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: none of theirs is needed there
        child = os.fork()
    if not child:
        _work(partial(work, writing))
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
