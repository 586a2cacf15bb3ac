"""Threads of the library that multiplies numpy's matrices: one, while models are looked at.

The products here are small, and many. More threads gain little on an idle machine, and on a busy one they
wait for each other: calibrating MobileNetV1 on two cores that others used took 29 s with two, 10 s with one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """For the whole process, until the block ends; also a decorator."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield
