"""Which tensors carry more than a byte from a layer: to the functions by table that alone read it, and to the
end of a head.

A layer in front of SiLU, leaky ReLU, GELU … has a range of which the function flattens a large part. In bytes
its rounding is coarser than that of the function's result, and it comes on top. Boxes and scores that
nothing in integers reads are used one by one, and no sum makes up for their rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hwptq.targets.op_kinds import CONVOLUTIONS, WEIGHTED_OPS


def fine_groups(
    kinds: Mapping[Any, str | None],
    readers: Mapping[Any, Sequence[Any]],
    groups: Sequence[set[Any]],
    is_table: Callable[[Any], bool],
) -> set[int]:
    """The numbers of the groups of tensors that a layer makes, perhaps moved, and tables alone read."""
    return {
        i
        for i, group in enumerate(groups)
        if any(kinds.get(v) in WEIGHTED_OPS for v in group)
        and (behind := {u for v in group for u in readers.get(v, ())} - group)
        and all(u is not None and kinds.get(u) is not None and is_table(u) for u in behind)
    }


def head_ends(
    kinds: Mapping[Any, str | None], groups: Sequence[set[Any]], is_last: Callable[[set[Any]], bool]
) -> set[int]:
    """The numbers of the groups of tensors that convolutions make and nothing in integers reads. Dense layers
    give float32 there, where a target offers that."""
    made = [any(kinds.get(v) in CONVOLUTIONS for v in group) for group in groups]
    return {i for i, group in enumerate(groups) if made[i] and is_last(group)}
