"""FuseMasks: what hides values from a softmax becomes a mask of the softmax, and leaves its input.

    softmax(x + m), m of 0 and something very negative
    softmax(where(c, x, something very negative))       -> softmax of the others: Composite (x, hidden)

The result is the same but for rows that are hidden whole, which become zeros. So no mask is part of a range.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.ir.dataflow import bindings, constant, main_functions, op_name, rewrite, shape_of

from .graph.masks import Masks, is_hiding, sides


@tvm.transform.module_pass(opt_level=0, name="hwptq.FuseMasks")
class FuseMasks:
    """softmax of a masked tensor -> Composite "hwptq.softmax" of (x, hidden bool).

    Over the last axis; stands before FuseConvRelu.

    Masks are constants, or computed from booleans and integers by casts, products and sums with numbers,
    where, and data movement; an integer hides or shows by whether it is 0. A where that replaces NaN behind a
    softmax, for rows that are hidden whole, goes.
    """

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        values = {v: value for _, func in main_functions(mod) for v, value in bindings(func)}
        masks: dict[int, Masks] = {}

        def visit(r: Any, var: Any, value: Any) -> Any:
            mine = masks.setdefault(id(r), Masks(r, values))
            if op_name(value) == "where" and _replaces_nan(value, values):
                return r.get(value.args[2])
            if op_name(value) != "nn.softmax" or not _is_over_last(value):
                return r.keep(value)
            x, hidden = _unmasked(mine, value.args[0])
            return r.keep(value) if hidden is None else _outlined(r, value, r.get(x), hidden)

        return rewrite(mod, visit)


def _is_over_last(softmax: Any) -> bool:
    rank = len(shape_of(softmax))
    return int(softmax.attrs.axis) % rank == rank - 1


def _unmasked(masks: Masks, expr: Any) -> tuple[Any, Any]:
    """(x, hidden) of a softmax of `expr`, in the old and in the new function; None without a mask."""
    found: list[Any] = []
    while True:
        value: Any = masks.values.get(expr)
        step = _sum(masks, value) if op_name(value) == "add" else _where(masks, value)
        if step is None:
            return expr, masks.any_of(found)
        expr, hidden = step
        found.append(hidden)


def _sum(masks: Masks, value: Any) -> tuple[Any, Any] | None:
    for x, mask in sides(value):
        if isinstance(x, relax.Var):
            hidden = masks.hidden_by(mask)
            if hidden is not None:
                return x, hidden
    return None


def _where(masks: Masks, value: Any) -> tuple[Any, Any] | None:
    """where(c, x, hiding) or where(c, hiding, x)."""
    if op_name(value) != "where":
        return None
    condition, first, second = value.args
    for x, other, negated in ((second, first, False), (first, second, True)):
        number = constant(other)
        if number is not None and is_hiding(number) and isinstance(x, relax.Var):
            hidden = masks.condition(condition)
            return x, masks.negated(hidden) if negated else hidden
    return None


def _replaces_nan(value: Any, values: Any) -> bool:
    """where(isnan(softmax), 0, softmax): what exports write for rows that are hidden whole."""
    condition, zero, kept = (values.get(value.args[0]), constant(value.args[1]), value.args[2])
    asked = op_name(condition) == "isnan" and condition.args[0] == kept
    return asked and op_name(values.get(kept)) == "nn.softmax" and zero is not None and not np.any(zero)


def _outlined(r: Any, softmax: Any, x: Any, hidden: Any) -> Any:
    """A call of a new Composite function of x and hidden."""
    params = [relax.Var("x", x.ty), relax.Var("hidden", hidden.ty)]
    lowest = relax.const(np.finfo(np.float32).min)
    builder = relax.BlockBuilder()
    with builder.function("composite", params):
        with builder.dataflow():
            shown = builder.emit(relax.op.where(params[1], lowest, params[0]))
            out = builder.emit_output(relax.Call(softmax.op, [shown], softmax.attrs))
        builder.emit_func_output(out)
    func = builder.get()["composite"].with_attrs({"Composite": "hwptq.softmax", "Primitive": True})
    func = func.without_attr("global_symbol")
    return relax.Call(r.add_function(func, "hwptq_softmax"), [x, hidden])
