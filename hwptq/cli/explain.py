"""What an exception says to the user: one line, and an exit code."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hwptq.disk import fullest, is_full
from hwptq.errors import HwptqError

INTERNAL = 1  # the exit code of a fault of ours
_NO_MEMORY = ("bad_alloc", "Cannot allocate memory", "Unable to allocate", "out of memory", "length_error")


def explained(error: Exception) -> tuple[int, str]:
    """The exit code, and the line; descriptors name all their mistakes, one a line."""
    if isinstance(error, HwptqError):
        return error.exit_code, "\n".join(error.lines())
    if isinstance(error, MemoryError) or any(part in str(error) for part in _NO_MEMORY):
        return 3, "there is not enough memory for this model and its data; try smaller inputs (--axis)"
    if isinstance(error, OSError):
        return 2, _of_system(error)
    if isinstance(error, RecursionError):
        return 3, "the model is nested too deeply"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"internal error ({type(error).__name__}): {lines[0] if lines else 'no message'}"
    return INTERNAL, f"{text}; --verbose shows where; please report it"


def _of_system(error: OSError) -> str:
    if is_full(error):
        return f"{fullest([Path(error.filename or tempfile.gettempdir())])}: the disk is full"
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"
