"""Which weights of a float module get a scale for each group of inputs, and in which formats."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tvm

from hwptq.formats import Format, format_of
from hwptq.ir.composite import read_composite, weight_of
from hwptq.ir.dataflow import bindings, constant, op_name, reads
from hwptq.ir.movement import MOVEMENTS
from hwptq.ir.provenance import origins
from hwptq.quant.group_codes import SIZES
from hwptq.targets.op_kinds import GROUP_OP
from hwptq.targets.schema import Descriptor

#: (format, size of groups)
Grouping = tuple[Format, int]
#: Elements of a group where nobody says how many.
DEFAULT_SIZE = 32
_LEAST_AT_ENDS = 4  # bits
#: With weights of so many bits, the ends have groups of so many.
_FEW, _BESIDE_FEW = 2, 64


@dataclass(frozen=True)
class GroupFormats:
    """The formats of weights by name, and the sizes of their groups.

    Tables of embeddings and the last layers, which lose most, have formats and groups of their own.
    """

    weight: str
    size: int
    end_weight: str
    end_size: int

    def __post_init__(self) -> None:
        least, most = SIZES
        for size in (self.size, self.end_size):
            if not least <= size <= most:
                raise ValueError(f"groups of {size} weights: from {least} to {most} are possible")

    def of(self, weight: GroupedWeight) -> Grouping:
        """(format, size of groups) of a weight."""
        return (
            format_of(self.end_weight if weight.at_end else self.weight),
            self.end_size if weight.at_end else self.size,
        )


@dataclass(frozen=True)
class ChosenGroups:
    """(name of the format, size of groups) of each weight, by the label of the node that reads it."""

    by_label: Mapping[str, tuple[str, int]]

    def of(self, weight: GroupedWeight) -> Grouping:
        """(format, size of groups) of a weight."""
        name, size = self.by_label[weight.label]
        return format_of(name), size


class GroupChoice(Protocol):
    """Says in which format, in groups of which size, a weight is stored."""

    def of(self, weight: GroupedWeight) -> Grouping:
        """(format, size of groups) of a weight."""


def group_formats(
    target: Descriptor, precision: str | None, size: int | None, lower_ends: bool = False
) -> GroupFormats:
    """What a target offers for `precision` ("w4a8"; None: the first it lists), in groups of `size`.

    The ends of a network have four bits at least, and groups half as large, unless `lower_ends`; beside
    weights of two bits groups of 64. Raises ValueError where the target offers no such weights.
    """
    rule = target.rule(GROUP_OP)
    if rule is None:
        raise ValueError(f"{target.name} offers no weights with a scale for each group")
    weights = [format_of(weight) for _, weight in rule.pairs]
    bits = sorted({w.bits for w in weights}, reverse=True)
    found = re.fullmatch(r"w(\d+)a8", precision or f"w{weights[0].bits}a8")
    chosen = next((w for w in weights if found and w.bits == int(found[1])), None)
    if chosen is None:
        words = ", ".join(f"w{b}a8" for b in bits)
        raise ValueError(f"{precision}: {target.name} offers {words} in groups")
    size = size or DEFAULT_SIZE
    end = next((w for w in weights if w.bits == _LEAST_AT_ENDS), chosen)
    if lower_ends or chosen.bits > end.bits:
        return GroupFormats(chosen.name, size, chosen.name, size)
    end_size = _BESIDE_FEW if chosen.bits <= _FEW else max(size // 2, SIZES[0])
    return GroupFormats(chosen.name, size, end.name, end_size)


@dataclass(frozen=True)
class GroupedWeight:
    """A weight as rows [R, K], the products of inputs along a row: those of a dense layer, or of a table.

    label: of the node that reads it; rows: one array for all weights of a function that are equal; shared:
    whether a dense layer and a look-up read the same rows, whose codes are stored once then.
    """

    label: str
    rows: np.ndarray
    is_table: bool
    at_end: bool
    shared: bool


def grouped_weights(mod: tvm.IRModule, func: Any) -> dict[Any, GroupedWeight]:
    """Those of a function: var of the dense layer or look-up -> its weight.

    A table whose rows multiply what layers give, such as the sines of rotary positions, is no weight.
    """
    found = dict(_weights(mod, func))
    turning = _factors(func, found)
    left = {var: weight for var, weight in found.items() if var not in turning}
    named = origins(func)
    last = _last_layers(func, {var for var, (_, is_table) in left.items() if not is_table})
    alike = dict(zip(left, _each_once([rows for rows, _ in left.values()]), strict=True))
    readers = {(id(rows), left[var][1]) for var, rows in alike.items()}

    def described(var: Any, is_table: bool) -> GroupedWeight:
        shared = (id(alike[var]), not is_table) in readers
        at_end = is_table or shared or var in last
        return GroupedWeight(named[var].label, alike[var], is_table, at_end, shared)

    return {var: described(var, is_table) for var, (_, is_table) in left.items()}


def _each_once(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each array the first that equals it. By values: exporters write a table that is the head too once,
    or twice, straight or transposed, and all of them can be stored once."""
    known: dict[tuple[Any, ...], list[np.ndarray]] = {}
    found = []
    for array in arrays:
        same = known.setdefault((array.shape, (array[:1] + 0.0).tobytes()), [])  # -0.0 equals 0.0
        first = next((other for other in same if np.array_equal(other, array)), None)
        if first is None:
            same.append(array)
        found.append(array if first is None else first)
    return found


def _weights(mod: tvm.IRModule, func: Any) -> Iterator[tuple[Any, tuple[np.ndarray, bool]]]:
    for var, value in bindings(func):
        table = _table(value)
        if table is not None:
            yield var, (table, True)
            continue
        unit = read_composite(mod, value)
        weight = weight_of(value) if unit is not None and unit.kind == "matmul" else None
        if weight is not None and weight.ndim == 2:
            yield var, (weight.T, False)


def _table(value: Any) -> np.ndarray | None:
    """The constant table of float32 that a call looks rows up in."""
    if op_name(value) != "take" or value.attrs.axis is None or int(value.attrs.axis) != 0:
        return None
    table = constant(value.args[0])
    return table if table is not None and table.ndim == 2 and str(table.dtype) == "float32" else None


def _factors(func: Any, weights: Mapping[Any, tuple[np.ndarray, bool]]) -> set[Any]:
    """Look-ups whose rows, however moved, are multiplied by what a dense layer gives."""
    values, behind = dict(bindings(func)), dict[Any, bool]()
    for var, value in values.items():
        layer = var in weights and not weights[var][1]
        behind[var] = layer or any(behind.get(source, False) for source in reads(value))
    moved: dict[Any, Any] = {var: var for var, (_, is_table) in weights.items() if is_table}
    found = set()
    for var, value in values.items():
        if op_name(value) in MOVEMENTS and value.args[0] in moved:
            moved[var] = moved[value.args[0]]
        if op_name(value) == "multiply":
            for row, other in (value.args, value.args[::-1]):
                if row in moved and behind.get(other, False):
                    found.add(moved[row])
    return found


def _last_layers(func: Any, layers: set[Any]) -> set[Any]:
    """Layers from which no other is reached."""
    followed: set[Any] = set()
    waiting = [source for var in layers for source in reads(dict(bindings(func))[var])]
    values, seen = dict(bindings(func)), set()
    while waiting:
        var = waiting.pop()
        if var in seen or var not in values:
            continue
        seen.add(var)
        if var in layers:
            followed.add(var)
        waiting += reads(values[var])
    return layers - followed
