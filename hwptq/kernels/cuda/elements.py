"""Operators that are computed element by element, and what moves their tensors, as one kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from tvm.script.ir_builder import tirx as T

from hwptq.kernels.joins import ElementsJoin, ElementsNode, Joined, Operand, View
from hwptq.kernels.template import import_kernels
from hwptq.tir.builder import TEMPLATE, Expr
from hwptq.tir.kernel import TensorType
from hwptq.tir.loops import row_major

from .element import element_of
from .flat import flat_kernel, indices


@dataclass(frozen=True)
class _Computed:
    """A tensor that is nowhere: an element is computed where it is read."""

    dtype: str
    load: Callable[[Expr], Expr]


def elements_kernel(join: ElementsJoin) -> Joined:
    """The kernel, a thread for each element of the last node."""
    import_kernels()

    def element(at: Expr, *tensors: Any) -> Expr:
        found: list[_Computed] = []
        for node in join.nodes:
            operands = [
                _operand(o, found[o.source] if o.of_node else tensors[o.source]) for o in node.operands
            ]
            found.append(_Computed(node.out.dtype, _element(node, operands)))
        return found[-1].load(at)

    out = join.nodes[-1].out
    func = flat_kernel(join.inputs, out, {TEMPLATE: "elements"}, element)
    return Joined(func, (), [out], "elements")


def _element(node: ElementsNode, operands: Sequence[Any]) -> Callable[[Expr], Expr]:
    types = [TensorType(o.view.shape, o.view.stored.dtype) for o in node.operands]
    if node.op is None:
        return _joined(types, node.axis, operands)
    found = element_of(node.op, types, node.out)
    return lambda at: found(at, *operands)


def _joined(types: Sequence[TensorType], axis: int, parts: Sequence[Any]) -> Callable[[Expr], Expr]:
    """An element of a concatenation. What is computed of a part that it is not in is of its first or last
    element, since some of it may be computed anyway."""
    sizes = [prod(t.shape[axis:]) for t in types]
    pitch = sum(sizes)

    def load(at: Expr) -> Expr:
        row, within = T.floordiv(at, pitch), T.floormod(at, pitch)
        first, found = pitch, None
        for part, size in zip(reversed(parts), reversed(sizes), strict=True):
            first -= size
            inner = T.max(T.min(within - first, size - 1), 0)
            here = part.load(row * size + inner)
            found = here if found is None else T.if_then_else(within < first + size, here, found)
        return found

    return load


def _operand(operand: Operand, source: Any) -> Any:
    view = operand.view
    if (view.shape, view.first) == (view.stored.shape, 0) and view.strides == row_major(view.shape):
        return source
    return _Computed(view.stored.dtype, lambda at: source.load(_place(view, at)))


def _place(view: View, at: Expr) -> Expr:
    """Number of an element of a view -> its place in what is stored."""
    if view.strides == row_major(view.shape):
        return at + view.first
    where = indices(at, view.shape)
    return sum((i * s for i, s in zip(where, view.strides, strict=True) if s), view.first)
