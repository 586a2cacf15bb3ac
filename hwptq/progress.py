"""Telling the caller how far a compilation has come; silent unless the caller brings a display."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import TypeVar

T = TypeVar("T")


class Progress:
    """Stages of a flow: measures the seconds of each. Subclasses show them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A named part of the flow."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)

    def track(self, items: Iterable[T], total: int | None) -> Iterable[T]:
        """`items`, counted as they are taken; `total` is their number, or None where nobody knows it."""
        return items


class Ticks:
    """Counts what is done elsewhere: called with the number of items that have come."""

    def __init__(self, progress: Progress, total: int | None):
        self._left = iter(progress.track(count() if total is None else range(total), total))

    def __call__(self, number: int = 1) -> None:
        for _ in range(number):
            next(self._left, None)
