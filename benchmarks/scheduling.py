"""What else the machine does while something is timed: nothing at all, or one core is busy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def realtime(wanted: bool) -> Iterator[None]:
    """Ahead of all ordinary processes: this thread, and the processes and threads it starts (needs root).

    For short measurements on a machine that has other work to do.
    """
    if not wanted:
        yield
        return
    before = os.sched_getscheduler(0)
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))


@contextmanager
def busy_core(wanted: str | None) -> Iterator[None]:
    """Beside a process that always runs: "pinned" to the last core, or "free" to be moved about."""
    if wanted is None:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        if wanted == "pinned":
            os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
        yield
    finally:
        process.kill()
        process.wait()
