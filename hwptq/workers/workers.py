"""Workers: who does the parts of a task. The parts, and what becomes of them, do not depend on that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from hwptq.evaluate.downstream import on_threads

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Samples that are one part of a task: fixed, as sums of floats depend on how they are divided.
SHARD = 64


class Task(ABC, Generic[Item, Result]):
    """Work on items of which none needs another: pure, and of fields that can be sent to another process.

    threads: whether this process may work on several items at once, each thread with a bench of its own.
    """

    threads: ClassVar[bool] = False

    @abstractmethod
    def bench(self) -> Any:
        """What items are worked on with, made once by each worker: interpreters, open programs."""

    @abstractmethod
    def work(self, bench: Any, item: Item) -> Result:
        """The result of an item."""

    def sent(self) -> Task[Item, Result]:
        """The task as another process gets it."""
        return self

    def leave(self, bench: Any) -> None:
        """Give back what a bench holds."""
        return None


class Workers(ABC):
    """Does tasks. remote: whether in other processes, so that what a task tells of its progress is lost."""

    remote: ClassVar[bool] = False

    @abstractmethod
    def map(self, task: Task[Item, Result], items: Sequence[Item]) -> Iterator[Result]:
        """The results of all items, in their order, as they are known."""

    @abstractmethod
    def start(self, task: Task[Item, Result], item: Item) -> Callable[[], Result]:
        """What gives the result of an item that may be wanted. Let go, it is not done if nobody has begun."""

    def check(self, targets: Sequence[Any], paths: Sequence[str]) -> None:
        """Raise InputError where a worker lacks a program that a target needs, or one of the paths."""
        return None

    def close(self) -> None:
        """No more work."""
        return None


class Here(Workers):
    """This process, as there is no cluster."""

    def map(self, task: Task[Item, Result], items: Sequence[Item]) -> Iterator[Result]:
        if task.threads:
            yield from on_threads(task.bench, task.work, items)
            return
        bench = task.bench()
        try:
            for item in items:
                yield task.work(bench, item)
        finally:
            task.leave(bench)

    def start(self, task: Task[Item, Result], item: Item) -> Callable[[], Result]:
        """It is done when it is asked for: nobody else is there to begin it."""
        return lambda: next(iter(self.map(task, [item])))


def shards(count: int | None, size: int = SHARD) -> list[tuple[int, int | None]]:
    """(first, end) of each part of so many samples; one part of all where nobody knows their number."""
    if count is None:
        return [(0, None)]
    return [(first, min(first + size, count)) for first in range(0, count, size)]
