"""JoinRealKernels: what stays in float beside layers on rows with a scale each becomes fewer kernels.

    rescale(dense(codes), scales)                           one kernel
    codes and scales of norm(x + y)                         one kernel, which stores the sum too
    sums, products and sigmoids, and what moves them        one kernel

The values stay the same, bit for bit; whether there is such a kernel the target's selector says.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from hwptq.ir.dataflow import constant, op_name, shape_of
from hwptq.ir.movement import REARRANGED
from hwptq.kernels.joins import ElementsJoin, ElementsNode, Operand, RowsJoin
from hwptq.kernels.select import selector_of
from hwptq.operators.dense import DenseFloat
from hwptq.operators.group_dense import GroupDense
from hwptq.operators.real_arithmetic import RealArithmetic
from hwptq.operators.real_norm import RealLayerNorm, RealRmsNorm
from hwptq.operators.real_sigmoid import RealSigmoid
from hwptq.operators.rows import RowQuantize, RowRescale, RowScale

from .graph.kernel_groups import Finder, Groups, KernelGroup, join, type_of
from .graph.views import view_of

_MOVES = (*REARRANGED, "strided_slice")
_BY_ELEMENT = (RealArithmetic, RealSigmoid)


@tvm.transform.module_pass(opt_level=0, name="hwptq.JoinRealKernels")
class JoinRealKernels:
    """For an integer module. Only where nothing else reads what would be no tensor any more."""

    def __init__(self, target: Any):
        self.selector = selector_of(target)

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        def rows_of(func: Any) -> Groups:
            finder = _Finder(mod, func, self.selector)
            found = [finder.rescaled(var) or finder.coded(var) for var in finder.values]
            return {group.at: group for group in found if group is not None}

        mod = join(mod, rows_of)
        return join(mod, lambda func: _Elements(mod, func, self.selector).groups())


class _Finder(Finder):
    """The joins around layers."""

    def rescaled(self, var: Any) -> KernelGroup | None:
        """What becomes of the sums of a layer, with the layer."""
        rescale = self.node(var, RowRescale)
        dense = self.node(rescale.activations[0], DenseFloat, GroupDense) if rescale else None
        if dense is None or self.readers[dense.var] != [var]:
            return None
        (x,), constants = dense.activations, [*dense.constants, *rescale.constants]
        arrays = [constant(c) for c in constants]
        if any(a is None for a in arrays):
            return None
        kernel = self.selector.dense_rescaled(dense.op, rescale.op, type_of(x), arrays)
        if kernel is None:
            return None
        given = () if kernel.constants else constants
        return KernelGroup(var, kernel, [x, rescale.activations[1]], given, [var], [dense.var, var])

    def coded(self, var: Any) -> KernelGroup | None:
        """Codes and scales of rows, with the norm and the sum before them."""
        scale = self.node(var, RowScale)
        if scale is None:
            return None
        (x,) = scale.activations
        readers = [u for u in self.readers.get(x, []) if u is not None]
        codes = [u for u in readers if (q := self.node(u, RowQuantize)) and q.activations == (x, var)]
        if len(codes) != 1:
            return None
        norm: Any = self.node(x, RealRmsNorm, RealLayerNorm)
        total: Any = self._sum(norm.activations[0]) if norm else None
        start = total.activations if total else norm.activations if norm else (x,)
        keeps = norm is not None and len(self.readers[x]) > 1 + len(codes)
        keeps_sum = total is not None and len(self.readers[total.var]) > 1
        rows = RowsJoin(total is not None, norm.op if norm else None, type_of(start[0]), keeps_sum, keeps)
        kernel = self.selector.rows(rows)
        if kernel is None:
            return None
        results = [*([total.var] if keeps_sum else []), *([x] if keeps else []), *codes, var]
        inside = [*([total.var] if total else []), *([x] if norm else []), *codes, var]
        at = total.var if total else x if norm else var
        return KernelGroup(at, kernel, start, norm.constants if norm else (), results, inside)

    def _sum(self, var: Any) -> Any:
        """The sum of two tensors of one shape that a binding is."""
        found = self.node(var, RealArithmetic)
        alike = found and found.op.function == "add" and len({shape_of(a) for a in found.activations}) == 1
        return found if alike else None


class _Elements(Finder):
    """Trees of operators that are computed element by element."""

    def groups(self) -> Groups:
        """Of each operator that no other takes in, with what it takes in itself."""
        found: Groups = {}
        for var in self.values:
            if self._by_element(var) and not self._taken(var):
                group = self._group(var)
                if group is not None:
                    found[var] = group
        return found

    def _by_element(self, var: Any) -> bool:
        value: Any = self.values.get(var)
        if op_name(value) == "concat":
            return bool(var.ty.dtype == "float32") and isinstance(value.args[0], relax.Tuple)
        return self.node(var, *_BY_ELEMENT) is not None

    def _operands(self, var: Any) -> list[Any]:
        node = self.node(var, *_BY_ELEMENT)
        return list(node.activations) if node else list(self.values[var].args[0].fields)

    def _taken(self, var: Any) -> bool:
        """Whether one operator alone reads what `var` gives, moved or not."""
        reader = self.only_reader(var)
        while reader is not None and op_name(self.values[reader]) in _MOVES:
            reader = self.only_reader(reader)
        return reader is not None and self._by_element(reader) and self._reads(reader, var)

    def _reads(self, reader: Any, var: Any) -> bool:
        """Whether just one operand is `var`."""
        roots = [view_of(a, self.values)[0] for a in self._operands(reader) if isinstance(a, relax.Var)]
        return roots.count(var) == 1

    def _group(self, var: Any) -> KernelGroup | None:
        inputs: list[Any] = []
        nodes: list[ElementsNode] = []
        places: dict[Any, int] = {}

        def visit(at: Any) -> int:
            operands = []
            for a in self._operands(at):
                root, view = view_of(a, self.values)
                if isinstance(a, relax.Var) and root in self.values and self._inside(root):
                    operands.append(Operand(visit(root), True, view))
                    continue
                known = next((i for i, x in enumerate(inputs) if x.same_as(root)), None)
                inputs.extend([] if known is not None else [root])
                operands.append(Operand(len(inputs) - 1 if known is None else known, False, view))
            found = self.node(at, *_BY_ELEMENT)
            axis = 0 if found else int(self.values[at].attrs.axis) % len(shape_of(at))
            nodes.append(ElementsNode(found.op if found else None, tuple(operands), type_of(at), axis))
            places[at] = len(nodes) - 1
            return places[at]

        visit(var)
        moved = any(o.view.shape != o.view.stored.shape for node in nodes for o in node.operands)
        if len(nodes) == 1 and not moved:
            return None
        kernel = self.selector.elements(ElementsJoin(tuple(map(type_of, inputs)), tuple(nodes)))
        return None if kernel is None else KernelGroup(var, kernel, inputs, (), [var], list(places))

    def _inside(self, var: Any) -> bool:
        return self._by_element(var) and self._taken(var)
