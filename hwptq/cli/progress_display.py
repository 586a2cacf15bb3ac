"""How far a command has come: bars on a terminal, else a line for each stage that takes a second."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from hwptq.progress import Progress

T = TypeVar("T")
#: Stages that are over sooner have no line of their own where there is no terminal.
_SECONDS = 1.0


class TerminalProgress(Progress):
    """A line for each stage, with a bar where its work is counted; nothing where nobody wants it (quiet).

    A stage may count several times, such as data that is read twice: each is a pass of its own. Stages may
    lie inside of each other. Use it as a context.
    """

    def __init__(self, quiet: bool = False) -> None:
        super().__init__()
        columns = (
            TextColumn("{task.description:<22}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._console = Console(stderr=True)
        self._quiet = quiet
        self._lines = not quiet and not self._console.is_terminal
        self._bars = Bars(*columns, console=self._console, disable=quiet or self._lines)
        self._open: list[_Stage] = []  # the innermost is the last

    def __enter__(self) -> TerminalProgress:
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the display."""
        self._bars.stop()

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Show, on a terminal, that libraries are loaded: it belongs to no flow."""
        task = self._bars.add_task("load", total=None)
        yield
        self._bars.update(task, total=1, completed=1)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Show a stage; it counts as one step unless it tracks items."""
        found = _Stage(name, self._bars.add_task(name, total=None))
        self._open.append(found)
        begin = perf_counter()
        try:
            with super().stage(name):
                yield
        finally:
            self._open.pop()
        seconds = perf_counter() - begin
        self._bars.update(found.task, total=found.done or 1, completed=found.done or 1)
        if self._lines and seconds >= _SECONDS:
            counted = f"{found.done} in " if found.done else ""
            self._console.print(f"{name}: {counted}{seconds:.1f} s", highlight=False, markup=False)

    def tell(self, text: str) -> None:
        """A line above the bars."""
        if not self._quiet:
            self._bars.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def track(self, items: Iterable[T], total: int | None) -> Iterator[T]:
        """Show how many of `items` are done."""
        if not self._open:
            yield from items
            return
        stage = self._open[-1]
        stage.passes, stage.done = stage.passes + 1, 0
        number = f", pass {stage.passes}" if stage.passes > 1 else ""
        self._bars.reset(stage.task, total=total, description=f"{stage.name}{number}")
        for item in items:
            yield item
            stage.done += 1
            self._bars.advance(stage.task)


class _Stage:
    """One that is not over yet; done: items of its last pass."""

    def __init__(self, name: str, task: Any):
        self.name, self.task = name, task
        self.done = self.passes = 0
