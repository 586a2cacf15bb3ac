"""The known formats, by name."""

from __future__ import annotations

from typing import TypeVar

from .base import Format

_KNOWN: dict[str, Format] = {}
_F = TypeVar("_F", bound=Format)


def register(new: _F) -> _F:
    """Make a format known by its name; returns it. Raises ValueError for a name that another one has."""
    if _KNOWN.setdefault(new.name, new) != new:
        raise ValueError(f"there is a format {new.name!r} already")
    return new


def formats() -> tuple[Format, ...]:
    """All known formats, in the order in which they were registered."""
    return tuple(_KNOWN.values())


def format_of(name: str) -> Format:
    """The format of that name. Raises ValueError for an unknown one."""
    if name not in _KNOWN:
        raise ValueError(f"no dtype {name!r}; known are {', '.join(sorted(_KNOWN))}")
    return _KNOWN[name]
