"""The known formats, by name."""

from __future__ import annotations

import re
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


def holds_codes(dtype: str) -> bool:
    """Whether a tensor of that dtype may hold codes of a format."""
    return any(f.held == dtype for f in _KNOWN.values() if f.quantized)


def holds_floats(dtype: str) -> bool:
    """Whether a tensor of that dtype holds codes that are floats themselves."""
    return any(f.held == dtype for f in _KNOWN.values() if f.quantized and f.is_float)


def integers_in(dtype: str) -> list[Format]:
    """The formats of integers that fill at least the bytes of that dtype, which holds them."""
    return [f for f in _KNOWN.values() if f.held == dtype and not f.is_float and f.has_zero and f.bits >= 8]


def is_cast(dtype: str) -> bool:
    """Whether going to that dtype and back is a cast: its format has codes, but no scale."""
    return any(f.held == dtype for f in _KNOWN.values() if f.quantized and not f.scaled)


#: (activation, weight) formats of a layer, by name.
Pair = tuple[str, str]


def parse_precision(word: str) -> Pair:
    """What `--precision` names: "w4a8", weights and activations in integers of so many bits; "fp8", both in
    the format called so. Raises ValueError for anything else."""
    for f in _KNOWN.values():
        if word == f.short:
            return f.name, f.name
    found = re.fullmatch(r"w(\d+)a(\d+)", word)
    names = [f"int{bits}" for bits in found.groups()[::-1]] if found else []
    if len(names) != 2 or not all(name in _KNOWN for name in names):
        raise ValueError(f"no precision {word!r}")
    return names[0], names[1]


def precision_word(pair: Pair) -> str:
    """The inverse of parse_precision; "" where no word stands for the pair."""
    activation, weight = (format_of(name) for name in pair)
    if activation == weight and activation.short:
        return activation.short
    word = f"w{weight.bits}a{activation.bits}"
    return word if not (activation.is_float or weight.is_float) else ""
