"""Everything that is wrong with a descriptor, gathered and shown at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from hwptq.errors import ManyErrors

SHOWN_PROBLEMS = 50
MAX_PROBLEMS = 500  # counted; a file of garbage must not take long
_PLAIN = re.compile(r"[A-Za-z0-9_.+-]{1,60}")


def show(value: object) -> str:
    """A value as it may stand in a message: one line, short, no control characters.

    >>> show("a" * 99)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...'"
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return ascii(value if len(value) <= 60 else value[:56] + "...")
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a number of more than 20 digits"
    if isinstance(value, list):
        return "[" + ", ".join(map(show, value[:4])) + (", ...]" if len(value) > 4 else "]")
    if isinstance(value, dict):
        return "a table"
    return str(value)


def join(path: str, key: str) -> str:
    """`kernel` and `sdot` -> `kernel.sdot`; odd keys are quoted, so that a path stays one line."""
    shown = key if _PLAIN.fullmatch(key) else show(key)
    return f"{path}.{shown}" if path else shown


def suggest(word: str, known: Iterable[str]) -> str:
    """`did you mean lanes?`, or else the list of what is known."""
    names = list(known)
    near = difflib.get_close_matches(word[:100], names, 1)
    if near:
        return f"did you mean {near[0]}?"
    more = ", ..." if len(names) > 20 else ""
    return f"known: {', '.join(names[:20])}{more}" if names else "none is known"


@dataclass
class Problems:
    """The problems found so far; `origins` says which file a key path was written in."""

    file: str
    origins: dict[str, str] = field(default_factory=dict)
    found: list[tuple[str, str]] = field(default_factory=list)

    def add(self, path: str, what: str) -> None:
        """Note one problem of the key at `path` ("" = of the whole file)."""
        if len(self.found) < MAX_PROBLEMS and (path, what) not in self.found:
            self.found.append((path, what))

    def below(self, path: str) -> bool:
        """Whether the key at `path`, or one inside it, has a problem."""
        return any(p == path or p.startswith((path + ".", path + "[")) for p, _ in self.found)

    def raise_any(self) -> None:
        """InputError with one line per problem, if there is any."""
        if not self.found:
            return
        lines = [
            f"{self._origin(path)}: {path}: {what}" if path else f"{self.file}: {what}"
            for path, what in self.found[:SHOWN_PROBLEMS]
        ]
        if len(self.found) > SHOWN_PROBLEMS:
            lines.append(f"{self.file}: and {len(self.found) - SHOWN_PROBLEMS} more problems")
        raise ManyErrors(lines)

    def _origin(self, path: str) -> str:
        while path and path not in self.origins:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.origins.get(path, self.file)
