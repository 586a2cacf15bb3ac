"""The order of values on a GPU: each thread counts how many values come before its own."""

from __future__ import annotations

from tvm.script.ir_builder import tirx as T

from hwptq.operators.real_order import RealOrder
from hwptq.tir.builder import TEMPLATE, Expr, Flat, cast, loop
from hwptq.tir.kernel import PREVIOUS, Step, TensorType

from .flat import flat_kernel, register


def order_steps(op: RealOrder, x: TensorType, out: TensorType) -> tuple[Step, ...]:
    """The rank of each value in its row, then the place of each rank."""
    ranks = TensorType(x.shape, "int32")
    first = flat_kernel([x], ranks, {TEMPLATE: "flat"}, lambda at, values: _rank(op, x.shape[-1], at, values))
    second = flat_kernel(
        [ranks], out, {TEMPLATE: "flat"},
        lambda at, found: _place(x.shape[-1], out.shape[-1], at, found),
    )  # fmt: skip
    return Step(first, (0,), ranks, "order_ranks"), Step(second, (PREVIOUS,), out, "order_places")


def _rank(op: RealOrder, count: int, at: Expr, values: Flat) -> Expr:
    begin, number = T.bind(at - T.floormod(at, count)), T.bind(T.floormod(at, count))
    own, before = op.key(values.load(at), values.dtype), register(0, "int32")

    def other(j: Expr) -> None:
        key = op.key(values.load(begin + j), values.dtype)
        earlier = T.Or(key < own, T.And(key == own, j < number))
        before.store(0, before.load(0) + cast(earlier, "int32"))

    loop(count, other)
    return before.load(0)


def _place(count: int, kept: int, at: Expr, ranks: Flat) -> Expr:
    begin, rank, found = T.floordiv(at, kept) * count, T.floormod(at, kept), register(0, "int32")

    def candidate(j: Expr) -> None:
        mine = ranks.load(begin + j) == rank
        found.store(0, T.Select(mine, cast(j, "int32"), found.load(0)))

    loop(count, candidate)
    return cast(found.load(0), "int64")
