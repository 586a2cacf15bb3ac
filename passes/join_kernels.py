"""JoinKernels: what a device computes in one kernel becomes one call, before SelectKernels takes the rest.

    matmul(softmax(matmul(q, k), hidden), v), with what moves heads before and behind      one kernel
    norm(add(x, y)), and the same in bytes by rescale                                      one kernel
    dense(x) of queries, keys and values                                                   one dense layer
    lookup(dense(x))                                                                       one kernel

The values stay the same, bit for bit; whether there is such a kernel the target's selector says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import tvm
from tvm import relax

from hwptq.ir.dataflow import (
    constant,
    op_name,
    shape_of,
)
from hwptq.ir.movement import REARRANGED, order_of_axes
from hwptq.kernels.joins import AttentionJoin, Joined, NormJoin, View
from hwptq.kernels.select import selector_of
from hwptq.operators.add import Add
from hwptq.operators.dense import Dense
from hwptq.operators.lookup import Lookup
from hwptq.operators.matmul import MatMul
from hwptq.operators.norm import LayerNorm, RmsNorm
from hwptq.operators.rescale import Rescale
from hwptq.operators.softmax import Softmax
from hwptq.tir.kernel import TensorType
from hwptq.tir.loops import row_major

from .graph.kernel_groups import Finder, Groups, KernelGroup, join, type_of
from .graph.views import view_of

_MOVES = (*REARRANGED, "strided_slice")


@tvm.transform.module_pass(opt_level=0, name="hwptq.JoinKernels")
class JoinKernels:
    """For an integer module. Only where nothing else reads what would be no tensor any more."""

    def __init__(self, target: Any):
        self.selector = selector_of(target)

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        def groups_of(func: Any) -> Groups:
            finder = _Finder(mod, func, self.selector)
            found = (finder.norm(v) or finder.attention(v) or finder.looked_up(v) for v in finder.values)
            return {group.at: group for group in found if group is not None}

        return join(mod, groups_of)


class _Finder(Finder):
    """The joins of a function."""

    def norm(self, var: Any) -> KernelGroup | None:
        """A norm with the sum before it and the rescale behind it."""
        norm = self.node(var, LayerNorm, RmsNorm)
        if norm is None:
            return None
        (x,) = norm.activations
        add, readers = self.node(x, Add), self.readers.get(var, [])
        rescales = [u for u in readers if u is not None and self.node(u, Rescale)]
        rescale = self.node(rescales[0], Rescale) if len(rescales) == 1 else None
        keeps_sum = add is not None and self.readers[x] != [var]
        if keeps_sum and rescale is not None:
            rescale = None
        if add is None and rescale is None:
            return None
        operands = _operands(add) if add is not None else [x]
        if operands is None:
            return None
        types = [type_of(t) for t in operands]
        keeps = rescale is None or len(readers) > 1
        join = NormJoin(
            add.op if add else None, norm.op, rescale.op if rescale else None, types[0],
            types[1] if add else None, keeps_sum, keeps, str(var.ty.dtype),
        )  # fmt: skip
        kernel = self.selector.norm(join)
        if kernel is None:
            return None
        results = [*([x] if keeps_sum else []), var, *([rescale.var] if rescale else [])]
        inside = [*([x] if add else []), var, *([rescale.var] if rescale else [])]
        return KernelGroup(x if add else var, kernel, operands, norm.constants, results, inside)

    def attention(self, var: Any) -> KernelGroup | None:
        """The product of probabilities and values, with what makes the former."""
        mean: Any = self.node(var, MatMul)
        softmax: Any = self.node(mean.activations[0], Softmax) if mean else None
        scores: Any = self.node(softmax.activations[0], MatMul) if softmax else None
        if scores is None or self.readers[softmax.var] != [var] or self.readers[scores.var] != [softmax.var]:
            return None
        tensors = [*scores.activations, mean.activations[1]]
        if not all(isinstance(t, relax.Var) for t in tensors):
            return None
        (q, k, v) = (view_of(t, self.values) for t in tensors)
        roots = [root for root, _ in (q, k, v)]
        hidden = list(softmax.activations[1:])
        last, out = self._stored(var)
        mask = type_of(hidden[0]) if hidden else None
        join = AttentionJoin(scores.op, softmax.op, mean.op, q[1], k[1], v[1], mask, out)
        inside = [scores.var, softmax.var, var, last]
        kernel = self.selector.attention(join)
        if kernel is None:
            return None
        beside = self._beside(roots, join, inside)
        if beside is not None:
            wide, before = beside
            return KernelGroup(last, wide, hidden, (), [last], inside, before)
        return KernelGroup(last, kernel, [*roots, *hidden], (), [last], inside)

    def _beside(
        self, roots: Sequence[Any], join: AttentionJoin, inside: Sequence[Any]
    ) -> tuple[Joined, tuple[Joined, Any]] | None:
        """The kernel on queries, keys and values that lie side by side, and what makes them; None where they
        are no dense layers of one tensor, or others read them.
        """
        nodes = [self.node(root, Dense) for root in roots]
        if None in nodes or len(set(roots)) < len(roots) or len({n.activations[0] for n in nodes}) > 1:
            return None
        if not all(self._ends_in(root, inside) for root in roots):
            return None
        x = nodes[0].activations[0]
        arrays = [[constant(c) for c in n.constants] for n in nodes]
        dense = self.selector.dense_beside([n.op for n in nodes], type_of(x), arrays)
        if dense is None:
            return None
        (out,) = dense.results
        ends = list(accumulate(view.stored.shape[-1] for view in (join.q, join.k, join.v)))
        q, k, v = (
            _within(view, out, first)
            for view, first in zip((join.q, join.k, join.v), (0, *ends), strict=False)
        )
        if q is None or k is None or v is None:
            return None
        kernel = self.selector.attention(replace(join, q=q, k=k, v=v))
        return None if kernel is None else (kernel, (dense, x))

    def _ends_in(self, var: Any, inside: Sequence[Any]) -> bool:
        """Whether all that reads `var`, moved or not, is `inside`."""
        readers = self.readers.get(var, [])
        return all(
            u in inside or (u is not None and op_name(self.values[u]) in _MOVES and self._ends_in(u, inside))
            for u in readers
        )

    def looked_up(self, var: Any) -> KernelGroup | None:
        """A table of what a dense layer gives."""
        lookup = self.node(var, Lookup)
        dense = self.node(lookup.activations[0], Dense) if lookup else None
        if dense is None or self.readers[dense.var] != [var]:
            return None
        x, table = dense.activations[0], constant(lookup.constants[0])
        if table is None:
            return None
        arrays = [constant(c) for c in dense.constants]
        kernel = self.selector.dense_with_table(dense.op, type_of(x), arrays, table)
        return None if kernel is None else KernelGroup(var, kernel, [x], (), [var], [dense.var, var])

    def _stored(self, var: Any) -> tuple[Any, View]:
        """(the tensor that is stored, how `var` lies in it): its only reader may only move its axes."""
        reader, shape = self.only_reader(var), shape_of(var)
        if reader is not None and op_name(self.values[reader]) == "permute_dims":
            order = order_of_axes(self.values[reader])
            moved = row_major(shape_of(reader))
            strides = tuple(moved[order.index(i)] for i in range(len(shape)))
            return reader, View(type_of(reader), shape, strides)
        return var, View(type_of(var), shape, row_major(shape))


def _within(view: View, stored: TensorType, first: int) -> View | None:
    """A view of a tensor as one of a wider one, whose rows hold its own from element `first` on."""
    own, width = view.stored.shape[-1], stored.shape[-1]
    inner = [(n - 1) * s for n, s in zip(view.shape, view.strides, strict=True) if s % own]
    if sum(inner) + view.first % own >= own:
        return None
    strides = tuple(s if s % own else s // own * width for s in view.strides)
    return View(stored, view.shape, strides, view.first // own * width + first + view.first % own)


def _operands(add: Any) -> list[Any] | None:
    """The operands of a sum; None where the first is not as large as the result, as kernels want it."""
    a, b = add.activations
    return [a, b] if shape_of(a) == shape_of(add.var) else None
