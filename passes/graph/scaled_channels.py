"""Which tensors carry more than a byte from a function by table to a product with a number for each channel.

Such a product gives each channel a scale of its own (passes/equalize_depthwise.py). In bytes a small channel
would be gone before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hwptq.formats import INT12, INT16, Format
from hwptq.ir.dataflow import constant, op_name

#: The largest channel is so many times the smallest where that is left 7 bits of the 12 that a table reads.
MOST_SPREAD = 32.0


def scaled_groups(
    values: Mapping[Any, Any],
    kinds: Mapping[Any, str | None],
    readers: Mapping[Any, Sequence[Any]],
    groups: Sequence[set[Any]],
    is_table: Callable[[Any], bool],
) -> dict[int, Format]:
    """The numbers of the groups of tensors that tables make and that such products alone read, and what the
    tables are to read.
    """
    found: dict[int, Format] = {}
    for i, group in enumerate(groups):
        behind = [values.get(u) if kinds.get(u) == "mul" else None for v in group for u in readers.get(v, ())]
        factors = [f for call in behind for f in factors_of(call)]
        made = all(v in values and is_table(v) for v in group)
        if made and factors and len(factors) == len(behind):
            found[i] = INT16 if max(map(spread, factors)) > MOST_SPREAD else INT12
    return found


def factors_of(value: Any) -> list[np.ndarray]:
    """The constants of a product of a tensor with more than one number; none of another expression."""
    held = map(constant, value.args) if op_name(value) == "multiply" else ()
    return [c for c in held if c is not None and c.size > 1]


def spread(factors: np.ndarray) -> float:
    """How many times the largest factor is the smallest one that is not 0."""
    sizes = np.abs(factors[factors != 0])
    return float(sizes.max() / sizes.min()) if sizes.size else 1.0
