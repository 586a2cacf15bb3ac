"""The layout of each tensor of an integer graph: what all its readers want, if its producer can write it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hwptq.ir.dataflow import bindings, reads
from hwptq.kernels.wishes import AS_IT_IS, Wish, agreed
from hwptq.tir.layout import PLAIN, Layout, alike


@dataclass(frozen=True)
class Readings:
    """What the kernel of a binding reads, (tensor, wish) each, and which layouts it can write.

    over: the tensors whose memory its result may take, if they lie there alike and nobody reads them later.
    """

    pairs: tuple[tuple[Any, Wish], ...]
    writes: Callable[[Layout], bool]
    over: tuple[Any, ...] = ()


def stored_layouts(func: Any, readings: Callable[[Any, Any], Readings | None]) -> dict[Any, Layout]:
    """var -> its layout, for those of `func` that are not stored plainly.

    `readings` of a binding: None where it calls no kernel of ours.
    """
    wanted: dict[Any, list[Wish]] = {}
    writers: dict[Any, Callable[[Layout], bool]] = {}
    over: dict[Any, tuple[Any, ...]] = {}
    last: dict[Any, Any] = {}  # the last reader of a tensor
    for var, value in bindings(func):
        found = readings(var, value)
        pairs = found.pairs if found else [(tensor, AS_IT_IS) for tensor in reads(value)]
        for tensor, wish in pairs:
            wanted.setdefault(tensor, []).append(wish)
            last[tensor] = var
        if found:
            writers[var], over[var] = found.writes, found.over
    for tensor in reads(func.body.body):
        wanted.setdefault(tensor, []).append(AS_IT_IS)
    chosen = {var: agreed(wanted.get(var, [])) for var in writers}
    layouts = {var: layout for var, layout in chosen.items() if layout != PLAIN and writers[var](layout)}

    def suits(var: Any, layout: Layout) -> bool:
        return writers[var](layout) and all(w.takes(layout) for w in wanted.get(var, []))

    for var, tensors in over.items():
        for tensor in tensors:
            both = alike(layouts.get(tensor, PLAIN), layouts.get(var, PLAIN))
            if tensor in writers and last[tensor] is var and both and all(map(suits, (tensor, var), both)):
                layouts |= dict(zip((tensor, var), both, strict=True))
                break
    return {var: layout for var, layout in layouts.items() if layout != PLAIN}
