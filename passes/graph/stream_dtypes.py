"""Which tensors carry more than a byte between products: residual streams, and what norms and gates read.

A byte is enough for an operand of a product, which sums many roundings. Where sums go on from block to block,
where a norm takes the mean off, or where few factors are multiplied, one rounding is a part of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hwptq.formats import INT8, format_of
from hwptq.ir.dataflow import data_of
from hwptq.targets.op_kinds import STREAM_OPS

_SUMS = ("add", "mul")
_PRODUCTS = ("dense", "matmul")
#: A mean of few values, each of them rounded, is not much finer than they are.
_MEANS = ("masked_mean",)

Kinds = Mapping[Any, str | None]
Values = Mapping[Any, Any]
Readers = Mapping[Any, Sequence[Any]]


def wide_groups(
    values: Values, kinds: Kinds, readers: Readers, groups: Sequence[set[Any]], wants: Callable[[str], bool],
    is_end: Callable[[set[Any]], bool],
) -> set[int]:  # fmt: skip
    """The numbers of the groups of tensors that are wide. `wants`: whether an operator of STREAM_OPS reads
    wide tensors; where none does, nothing is wide. is_end: whether nothing in integers reads a group, tables
    counted, which `kinds` leaves out.

    1. What such operators read, and what they, or matrix products, give to the graph's user, or what they
       give to a mean over tokens: an embedding of few values is compared with others by all of its digits.
    2. The operands of sums and of products by element that are wide themselves.
    3. The operands of sums and of products by element that a matrix product reads: gates, rotary positions.
    """
    member = {v: i for i, group in enumerate(groups) for v in group}
    sinks = [v for v in values if (k := kinds.get(v)) in STREAM_OPS and wants(str(k))]
    if not sinks:
        return set()
    means = [v for v in values if kinds.get(v) in _MEANS]
    wide = {member[a] for v in [*sinks, *means] for a in data_of(values[v]) if a in member}
    wide |= {member[v] for v in sinks if v in member and _is_last(groups[member[v]], kinds, readers)}
    products = [v for v in values if kinds.get(v) in _PRODUCTS and v in member]
    wide |= {member[v] for v in products if is_end(groups[member[v]])}
    joins = [v for v in values if kinds.get(v) in _SUMS]
    into_products = {v for v in joins if _feeds_product(v, kinds, readers, groups, member)}
    for v in reversed(joins):  # operands are bound before what reads them
        if v in into_products or member.get(v) in wide:
            wide |= {member[a] for a in data_of(values[v]) if a in member}
    return wide


def holds_wide_products(kinds: Iterable[str | None], target: Any) -> bool:
    """Whether operands of products by element, in a graph of operators of such kinds, are wide integers."""
    mul = target.rule("mul")
    integers = mul is not None and any(not format_of(name).is_float for name, _ in mul.pairs)
    return integers and any(k in STREAM_OPS and reads_wide(target, str(k)) for k in kinds)


def reads_wide(target: Any, kind: str) -> bool:
    """Whether the operators of a kind read more than bytes best."""
    rule = target.rule(kind)
    return rule is not None and format_of(rule.pairs[0][0]).bits > INT8.bits


def _is_last(group: set[Any], kinds: Kinds, readers: Readers) -> bool:
    """Whether no node that is quantized reads a group of tensors."""
    return all(kinds.get(u) is None for v in group for u in readers.get(v, ()) if u not in group)


def _feeds_product(
    var: Any, kinds: Kinds, readers: Readers, groups: Sequence[set[Any]], member: Mapping[Any, int]
) -> bool:
    """Whether a matrix product reads `var`, moved or not: what moves it shares its scale."""
    moved = groups[member[var]] if var in member else {var}
    return any(kinds.get(u) in _PRODUCTS for v in moved for u in readers.get(v, ()))
