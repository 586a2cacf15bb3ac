"""How many cores are this process's to use."""

from __future__ import annotations

import multiprocessing
import os


def own_cores() -> int:
    """Cores that the system lets this process have; one in a worker, whose siblings have the others."""
    if multiprocessing.parent_process() is not None:
        return 1
    return len(os.sched_getaffinity(0))
