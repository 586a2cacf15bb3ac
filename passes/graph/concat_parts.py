"""Which parts of a concatenation keep a scale of their own: those that the common range leaves few codes.

One scale for all parts costs no step at run time, but a part whose range is a fraction of the whole keeps
that fraction of the codes only: scores in 0 … 1 beside boxes in 0 … 700 become all zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tvm import relax

from hwptq.ir.dataflow import op_name, reads

#: A part shares a scale where that leaves it a quarter of the codes: two bits of resolution.
LARGEST_RATIO = 4.0

#: (low, high) of a tensor in the calibration data.
RangeOf = Callable[[Any], tuple[float, float]]


def unlike_parts(parts: Iterable[Any], range_of: RangeOf) -> list[Any]:
    """The parts that the range of all of them together would leave less than a quarter of their codes."""
    spans = {part: _span(*range_of(part)) for part in parts}
    whole = max((high for _, high in spans.values()), default=0.0) - min(
        (low for low, _ in spans.values()), default=0.0
    )
    return [part for part, (low, high) in spans.items() if whole > LARGEST_RATIO * (high - low) > 0]


def _span(low: float, high: float) -> tuple[float, float]:
    """A range with the zero that every scale can represent."""
    return min(low, 0.0), max(high, 0.0)


def split_ends(
    values: Mapping[Any, Any],
    kinds: Mapping[Any, str | None],
    readers: Mapping[Any, list[Any]],
    range_of: RangeOf,
) -> set[Any]:
    """The concats of unlike parts at the end of a graph, where nothing in integers reads them, and the
    concats and the data movement behind: left in float, each part comes out in a scale of its own.
    """
    end: set[Any] = set()
    for var in reversed(values):
        who = readers.get(var, [])
        if kinds[var] in ("concat", "data_movement") and who:
            end |= {var} if all(u is None or u in end or kinds.get(u) is None for u in who) else set()
    found: set[Any] = set()
    for var, value in values.items():
        if var in end and (any(a in found for a in reads(value)) or _joins_unlike(value, range_of)):
            found.add(var)
    return found


def _joins_unlike(value: Any, range_of: RangeOf) -> bool:
    return op_name(value) == "concat" and bool(unlike_parts(parts_of(value), range_of))


def parts_of(concat: Any) -> list[Any]:
    """The activations that a concat joins."""
    return [part for part in concat.args[0].fields if isinstance(part, relax.Var)]
