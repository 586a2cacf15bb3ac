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
    calls it ("" where it is about the whole model); text: what is wrong and what to do, one line.
    serious: the results are likely to be useless, so that the report's `caution` says it too."""

    kind: str
    where: str
    text: str
    serious: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text

    def row(self) -> dict[str, str | bool]:
        """The warning in the list `warnings` of the report."""
        return asdict(self)


def caution(of_target: str, warnings: Sequence[Warning]) -> str | None:
    """What a report says first: the target's own caution, and serious warnings; None where there are none."""
    return "; ".join([*filter(None, [of_target]), *(str(w) for w in warnings if w.serious)]) or None


def refuse(warnings: Sequence[Warning]) -> None:
    """Raise StrictError where there are any."""
    if warnings:
        more = f" (and {len(warnings) - 1} more, see report.json)" if len(warnings) > 1 else ""
        raise StrictError(f"--strict: {warnings[0]}{more}")
