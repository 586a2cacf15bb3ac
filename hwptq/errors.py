"""Errors that a user can act on: one line each, with the exit code of the command line.

Passes raise plain ValueError, because TVM's FFI turns any other class into RuntimeError on its way out of
a Sequential. These classes are for everything outside the passes.
"""

from __future__ import annotations

from collections.abc import Iterable


def printable(text: str) -> str:
    """The text in one line: control characters as Python writes them, lines joined by spaces."""
    joined = " ".join(line.strip() for line in text.splitlines() if line.strip())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in joined)


class HwptqError(Exception):
    """Base of all errors shown to the user as one line; `exit_code` is the command's status."""

    exit_code = 2

    def lines(self) -> tuple[str, ...]:
        """What the user reads: one line, whatever a name in it holds."""
        return (printable(str(self)),)


class InputError(HwptqError):
    """The model, the data, the descriptor or an option is wrong: exit code 2."""


class ManyErrors(InputError):
    """All that is wrong with a file at once, a line each."""

    def __init__(self, lines: Iterable[str]):
        self._lines = tuple(map(printable, lines))
        super().__init__("\n".join(self._lines))

    def lines(self) -> tuple[str, ...]:
        return self._lines


class UnsupportedError(HwptqError):
    """The model can't be compiled, or nothing of it could be quantized: exit code 3."""

    exit_code = 3


class WithoutCode(UnsupportedError):
    """A node of a file has no code; the model can be cut in front of it."""


class BudgetError(HwptqError):
    """No assignment of bit widths fits the budget: exit code 4."""

    exit_code = 4


class AccuracyError(HwptqError):
    """The emitted code loses more than --max-drop allows: exit code 5."""

    exit_code = 5


class StrictError(HwptqError):
    """There are warnings, and --strict allows none: exit code 5."""

    exit_code = 5


class MismatchError(HwptqError):
    """The emitted code computes something else than the reference: exit code 6."""

    exit_code = 6
