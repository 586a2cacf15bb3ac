"""Runs what may not end, as a compiler may on rare input, in a process of its own."""

from __future__ import annotations

import os
import resource
import select
import signal
import warnings
from collections.abc import Callable
from enum import Enum, auto

_WAITING = 20  # times as long by the clock, on a busy machine


class Ended(Enum):
    """How it ended."""

    DONE = auto()
    FAILED = auto()
    OUT_OF_TIME = auto()


def run_apart(work: Callable[[], None], seconds: int) -> Ended:
    """Run `work` in a copy of this process, which may take so much processor time. What it writes stays."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: none of theirs is needed there
        child = os.fork()
    if not child:
        _work(work, seconds)
    os.close(writing)
    ended: list[int] = []
    try:
        ended, _, _ = select.select([reading], [], [], seconds * _WAITING)
    finally:  # also where the user interrupts it
        os.close(reading)
        if not ended:
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    if not ended or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return Ended.OUT_OF_TIME
    return Ended.FAILED if status else Ended.DONE


def _work(work: Callable[[], None], seconds: int) -> None:
    """Ends this process."""
    status = 1
    try:
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        work()
        status = 0
    finally:
        os._exit(status)
