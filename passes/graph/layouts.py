"""The layout of each tensor of an integer graph: what all its readers want, if its producer can write it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hwptq.kernels.layout import PLAIN, Layout
from hwptq.kernels.wishes import AS_IT_IS, Wish, agreed

from .dataflow import bindings, reads

#: The (tensor, wish) pairs of one binding, and which layouts its result may have; None for other bindings.
Reader = Callable[[Any, Any], "tuple[list[tuple[Any, Wish]], Callable[[Layout], bool]] | None"]


def stored_layouts(func: Any, reader: Reader) -> dict[Any, Layout]:
    """var -> its layout, for those of `func` that are not stored plainly."""
    wanted: dict[Any, list[Wish]] = {}
    writers: dict[Any, Callable[[Layout], bool]] = {}
    for var, value in bindings(func):
        found = reader(var, value)
        pairs = found[0] if found else [(tensor, AS_IT_IS) for tensor in reads(value)]
        for tensor, wish in pairs:
            wanted.setdefault(tensor, []).append(wish)
        if found:
            writers[var] = found[1]
    for tensor in reads(func.body.body):
        wanted.setdefault(tensor, []).append(AS_IT_IS)
    layouts = {var: agreed(wanted.get(var, [])) for var in writers}
    return {var: layout for var, layout in layouts.items() if layout != PLAIN and writers[var](layout)}
