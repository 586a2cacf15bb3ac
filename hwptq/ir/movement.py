"""Relax operators that compute nothing: results are values of their input, elsewhere or several times."""

from __future__ import annotations

from typing import Any

#: Another shape, the values in the same order.
SAME_ORDER = ("expand_dims", "flatten", "reshape", "squeeze")
#: Every value once.
REARRANGED = (*SAME_ORDER, "permute_dims")
#: All that have one input and move it by their attributes alone.
MOVEMENTS = (*REARRANGED, "broadcast_to", "strided_slice")


def order_of_axes(call: Any) -> tuple[int, ...]:
    """The axis of its input that each axis of a permute_dims is."""
    rank, axes = int(call.args[0].ty.ndim), call.attrs.axes
    return tuple(range(rank))[::-1] if axes is None else tuple(int(a) % rank for a in axes)
