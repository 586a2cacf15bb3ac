"""The layout of each tensor of an integer graph: what all its readers want, if its producer can write it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hwptq.ir.dataflow import bindings, reads
from hwptq.kernels.wishes import AS_IT_IS, Wish, agreed
from hwptq.tir.layout import PLAIN, Layout


@dataclass(frozen=True)
class Readings:
    """What the kernel of a binding reads, (tensor, wish) each, and which layouts it can write."""

    pairs: tuple[tuple[Any, Wish], ...]
    writes: Callable[[Layout], bool]


def stored_layouts(func: Any, readings: Callable[[Any, Any], Readings | None]) -> dict[Any, Layout]:
    """var -> its layout, for those of `func` that are not stored plainly.

    `readings` of a binding: None where it calls no kernel of ours.
    """
    wanted: dict[Any, list[Wish]] = {}
    writers: dict[Any, Callable[[Layout], bool]] = {}
    for var, value in bindings(func):
        found = readings(var, value)
        pairs = found.pairs if found else [(tensor, AS_IT_IS) for tensor in reads(value)]
        for tensor, wish in pairs:
            wanted.setdefault(tensor, []).append(wish)
        if found:
            writers[var] = found.writes
    for tensor in reads(func.body.body):
        wanted.setdefault(tensor, []).append(AS_IT_IS)
    layouts = {var: agreed(wanted.get(var, [])) for var in writers}
    return {var: layout for var, layout in layouts.items() if layout != PLAIN and writers[var](layout)}
