"""The weights of a float module that can have scales by group, each once however many nodes read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm

from hwptq.formats import format_of
from hwptq.quant.group_rounding import GroupProblem
from hwptq.targets.op_kinds import GROUP_OP
from hwptq.targets.schema import Descriptor

from .group_plan import DEFAULT_SIZE, GroupedWeight, Grouping, grouped_weights

#: Sizes of groups to choose from where nobody asks for one.
_SIZES = (16, 32, 64, 128)
#: The fewest weights of a group that kernels have, by bits of a weight; 32 for others.
_LEAST = {8: 16, 4: 16, 2: 16}


@dataclass(frozen=True)
class StoredWeight:
    """Rows [R, K], and the nodes that read them: (var, what it reads)."""

    readers: tuple[tuple[Any, GroupedWeight], ...]

    @property
    def rows(self) -> np.ndarray:
        """The weights in float, [R, K]."""
        return self.readers[0][1].rows

    @property
    def label(self) -> str:
        """Of the first node that reads it."""
        return self.readers[0][1].label

    @property
    def labels(self) -> tuple[str, ...]:
        """Of all of them."""
        return tuple(weight.label for _, weight in self.readers)

    @property
    def is_looked_up(self) -> bool:
        """Whether a look-up reads it, besides others perhaps."""
        return any(weight.is_table for _, weight in self.readers)


def stored_weights(mod: tvm.IRModule, function: str) -> list[StoredWeight]:
    """Those of a function, in its order; nodes that read equal rows share one."""
    alike: dict[int, list[tuple[Any, GroupedWeight]]] = {}
    for var, weight in grouped_weights(mod, mod[function]).items():
        alike.setdefault(id(weight.rows), []).append((var, weight))
    return [StoredWeight(tuple(readers)) for readers in alike.values()]


def groupings(target: Descriptor, depth: int, size: int | None = None) -> list[Grouping]:
    """The formats, and the sizes of groups, that a row of `depth` weights may have on a target.

    Of formats of as many bits the first it lists; groups of `size`, or of several sizes if None: those that
    divide a row, which kernels want. Raises ValueError where the target offers no such weights.
    """
    rule = target.rule(GROUP_OP)
    if rule is None:
        raise ValueError(f"{target.name} offers no weights with a scale for each group")
    by_bits = {weight.bits: weight for weight in reversed([format_of(w) for _, w in rule.pairs])}
    found = []
    for bits, weight in sorted(by_bits.items(), reverse=True):
        least = _LEAST.get(bits, DEFAULT_SIZE)
        sizes = [s for s in _SIZES if s >= least and depth % s == 0] if size is None else [size]
        found += [(weight, s) for s in sizes or [DEFAULT_SIZE]]
    return found


def stored_bits(rows: np.ndarray, grouping: Grouping) -> int:
    """Bits that rows take with their scales."""
    return 8 * GroupProblem(rows, *grouping).nbytes
