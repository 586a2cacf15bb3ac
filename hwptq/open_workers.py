"""The workers of a compilation, as --cluster names them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from .targets import Descriptor
from .workers.dask_workers import DaskWorkers
from .workers.workers import Here, Workers


@contextmanager
def open_workers(
    place: str | None, targets: Sequence[Descriptor], seen: Sequence[Any] = ()
) -> Iterator[Workers]:
    """Workers for some targets, this process where no place is given.

    seen: what workers must see, of which the paths that exist here are looked for there. Raises InputError
    where there is no such cluster, or a worker lacks a path, a compiler or an emulator.
    """
    if place is None:
        yield Here()
        return
    with closing(DaskWorkers(place)) as workers:
        paths = [str(path) for path in seen if isinstance(path, str | Path) and Path(path).exists()]
        workers.check(targets, paths)
        yield workers
