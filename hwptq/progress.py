"""Telling the caller how far a compilation has come; silent unless the caller brings a display."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")
#: Items and their number, if that is known -> the items, seen as they are taken.
Track = Callable[[Iterable[Any], "int | None"], Iterable[Any]]


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

    def tell(self, text: str) -> None:
        """Something that was found out on the way, in one line."""


class Ticks:
    """Counts what is done elsewhere: called with the number of items that have come, by any thread."""

    def __init__(self, track: Track, total: int | None):
        self._left = iter(track(count() if total is None else range(total), total))
        self._lock, self._done = Lock(), 0
        next(self._left, None)  # an item is done when the next one is taken

    def __call__(self, number: int = 1) -> None:
        with self._lock:
            self._advance(number)

    def reach(self, done: int) -> None:
        """At least so many items have come in all."""
        with self._lock:
            self._advance(done - self._done)

    def _advance(self, number: int) -> None:
        for _ in range(number):
            self._done += 1
            next(self._left, None)
