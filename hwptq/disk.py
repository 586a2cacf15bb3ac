"""Full disks: how one shows, and which it is."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

_SAID = os.strerror(errno.ENOSPC)  # by compilers, linkers and LLVM too
_ENOUGH = 64 * 1024  # bytes; a program that fails with less left and says nothing had too little


def is_full(error: OSError) -> bool:
    """Whether this error is a full disk, or a quota that is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def tells_of_full(text: str, places: Iterable[Path]) -> bool:
    """Whether what a program printed before it failed, while it wrote to `places`, tells of a full disk."""
    return _SAID in text or (not text.strip() and shutil.disk_usage(fullest(places)).free < _ENOUGH)


def fullest(places: Iterable[Path]) -> Path:
    """Of the disks that hold some places, the one with the least space left: where it is mounted."""
    there = [next(p for p in (place.absolute(), *place.absolute().parents) if p.exists()) for place in places]
    place = min(there, key=lambda place: shutil.disk_usage(place).free).resolve()
    return next(p for p in (place, *place.parents) if os.path.ismount(p))
