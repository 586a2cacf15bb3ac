"""How data movement reads its input: strides and a first element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hwptq.ir.dataflow import op_name, shape_of
from hwptq.ir.movement import order_of_axes
from hwptq.tir.loops import row_major


@dataclass(frozen=True)
class Walk:
    """Elements of the input from one to the next along each axis of the output, and its first one."""

    strides: tuple[int, ...]
    first: int


def walk(value: Any) -> Walk | None:
    """That of a permute_dims, or of a strided_slice that goes forward; None for anything else."""
    name = op_name(value)
    if name not in ("permute_dims", "strided_slice"):
        return None
    shape = shape_of(value.args[0])
    strides = row_major(shape)
    if name == "permute_dims":
        return Walk(tuple(strides[a] for a in order_of_axes(value)), 0)
    try:
        axes, begin, _, *steps = ([int(v) for v in a.fields] for a in value.args[1:])
    except (AttributeError, TypeError, ValueError):
        return None
    found, first = list(strides), 0
    for i, axis in enumerate(axes):
        a, step = axis % len(shape), steps[0][i] if steps else 1
        start = begin[i] + shape[a] if begin[i] < 0 else begin[i]
        if step < 1 or not 0 <= start < shape[a]:
            return None
        first += start * strides[a]
        found[a] *= step
    return Walk(tuple(found), first)
