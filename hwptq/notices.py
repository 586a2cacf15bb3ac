"""Warnings: what the user of a compilation should know of it, though nothing in it is wrong.

Whoever finds one hands it back with its result; the flow puts them together for the report. With `strict` any
of them ends a compilation with exit code 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from .errors import StrictError


@dataclass(frozen=True)
class Warning:
    """kind: what it is about, a word for scripts; where: a node, an input, an output or a file, as the user
    calls it ("" where it is about the whole model); text: what is wrong and what to do, one line."""

    kind: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text

    def row(self) -> dict[str, str]:
        """The warning in the list `warnings` of the report."""
        return asdict(self)


def refuse(warnings: Sequence[Warning]) -> None:
    """Raise StrictError where there are any."""
    if warnings:
        more = f" (and {len(warnings) - 1} more, see report.json)" if len(warnings) > 1 else ""
        raise StrictError(f"--strict: {warnings[0]}{more}")
