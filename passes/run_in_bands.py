"""RunInBands: a stretch of an integer graph is computed some rows at a time, so that less is held at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import tvm
from tvm import relax

from hwptq.ir.dataflow import Rewriter, constant, main_functions, rewrite, shape_of
from hwptq.ir.operator import Operator, to_json
from hwptq.tir.kernel import TensorType

from .graph.bands import Bound, Stretch, bound, rows_of_bands, walk_band
from .select_kernels import integer_node

_ROWS = 1  # the axis of an image [N,H,W,C]


@tvm.transform.module_pass(opt_level=0, name="hwptq.RunInBands")
class RunInBands:
    """Compute each stretch of `main` in bands of rows, from its first operator to its last, and join them.

    Every value is computed by the same operator on the same values, so the result is the same, bit for bit;
    rows that several bands need are computed for each. These are the patches of Lin et al., MCUNetV2, 2021,
    as wide as the image, so that they overlap on two sides only. `stretches` are numbers of bindings, and
    don't overlap.
    """

    def __init__(self, stretches: Sequence[Stretch]):
        self.stretches = tuple(stretches)

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        nodes = {gv.name_hint: bound(func, partial(integer_node, mod)) for gv, func in main_functions(mod)}[
            "main"
        ]
        last = {nodes[s.last].var: s for s in self.stretches}
        inside = {nodes[i].var for s in self.stretches for i in range(s.first, s.last)}
        functions: dict[Any, Any] = {}

        def visit(r: Rewriter, var: Any, value: Any) -> Any:
            if var in inside:
                return None
            if var not in last:
                return r.keep(value)
            stretch = last[var]
            return _emit(r, nodes[stretch.first : stretch.last + 1], stretch.bands, functions)

        return rewrite(mod, visit)


def _emit(r: Rewriter, stretch: Sequence[Bound], bands: int, functions: dict[Any, Any]) -> Any:
    result = stretch[-1].var
    own = {node.var for node in stretch}
    held = {
        t: (t if constant(t) is not None else r.get(t), range(shape_of(t)[_ROWS]))
        for node in stretch
        for t in node.activations
        if t not in own
    }

    def cut(tensor: Any, has: range, wanted: range) -> Any:
        first, behind = (at - has.start for at in (wanted.start, wanted.stop))
        return r.emit(relax.op.strided_slice(tensor, axes=[_ROWS], begin=[first], end=[behind]))

    def apply(node: Bound, op: Operator, tensors: list[Any], rows: range) -> Any:
        args = [*tensors, *node.constants]
        shape, dtype = shape_of(node.var), str(node.var.ty.dtype)
        shape = (shape[0], len(rows), *shape[2:])
        types = tuple(TensorType(shape_of(a), str(a.ty.dtype)) for a in args)
        key = (to_json(op), types, shape, dtype)
        if key not in functions:
            func = op.primfunc(types, TensorType(shape, dtype))
            functions[key] = r.add_function(func, f"hwptq_{op.kind}_rows")
        call = relax.call_tir(functions[key], args, relax.TensorType(shape, dtype))
        return r.emit(call, r.origins[node.var].unless(lambda o: o in r.emitted.values()))

    parts = [
        walk_band(stretch, rows, held, cut, apply) for rows in rows_of_bands(shape_of(result)[_ROWS], bands)
    ]
    return relax.op.concat(parts, axis=_ROWS)
