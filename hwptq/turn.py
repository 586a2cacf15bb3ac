"""A turn: what looks at a model has this process to itself.

TVM keeps one stack of builders for all threads; standard output, the filters of warnings and the threads of
BLAS belong to the process too. Two compilations at once failed, or left it without an output.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

from .blas import one_blas_thread

_TURN = RLock()  # a compilation may be a part of a search


@contextmanager
def turn() -> Iterator[None]:
    """Threads that want one at the same time wait for each other; also a decorator."""
    with _TURN, one_blas_thread():
        yield
