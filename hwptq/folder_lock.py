"""A folder that one living process works in: what a killed one left is told from work in progress."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PATIENCE = 2.0  # seconds in which the programs of a killed process stop writing


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder that exists. Raises BlockingIOError where a living process holds it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is(folder, handle):
            raise BlockingIOError(f"{folder} has just been replaced")
        yield
    finally:
        os.close(handle)


@contextmanager
def own(folder: Path, unless: Path | None = None) -> Iterator[None]:
    """Make `folder` and hold it; what a process that has ended left in it is removed.

    In the end all of it is removed, unless there is a file `unless` then.

    Raises BlockingIOError where a living process holds it, other OSErrors where it can't be made.
    """
    with suppress(FileExistsError):
        folder.mkdir()
    with lock(folder):
        for entry in folder.iterdir():
            remove(entry)
        try:
            yield
        finally:
            if unless is None or not unless.exists():
                remove(folder)


def clear(folder: Path) -> None:
    """Remove what a process that has ended left; the folder of a living one stays."""
    with suppress(OSError), lock(folder):
        remove(folder)


def remove(path: Path) -> None:
    """Remove a file or a folder of ours, to which programs that are being killed may still write."""
    deadline = time.monotonic() + _PATIENCE
    while os.path.lexists(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()
        if time.monotonic() > deadline:
            return


def _is(folder: Path, handle: int) -> bool:
    """Whether the path still means the folder that was opened."""
    try:
        return os.path.samestat(os.stat(folder), os.fstat(handle))
    except FileNotFoundError:
        return False
