"""FuseMasks: what hides values from a softmax becomes a mask of the softmax, and leaves its input.

    softmax(x + m), m of 0 and something very negative
    softmax(where(c, x, something very negative))       -> softmax of the others: Composite (x, hidden)
    softmax(x + where(c, b, something very negative))   -> the same of x + b, as positions have biases

The result is the same. In rows that are hidden whole all have one probability, as where the least float
hides (a mask as small as -1e4 would leave differences there), or 0 where the model replaces the NaN of a
softmax. So no mask is part of a range.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.ir.dataflow import bindings, constant, main_functions, op_name, rewrite, shape_of

from .graph.masks import Masks, is_hiding, sides

_DEPTH = 8  # sums and choices, one in another, that are looked through


@tvm.transform.module_pass(opt_level=0, name="hwptq.FuseMasks")
class FuseMasks:
    """softmax of a masked tensor -> Composite "hwptq.softmax" of (x, hidden bool).

    Over the last axis; stands before FuseConvRelu.

    Masks are constants, or computed from booleans and integers by casts, products and sums with numbers,
    where, and data movement; an integer hides or shows by whether it is 0. A where that replaces NaN behind a
    softmax, for rows that are hidden whole, becomes part of it.
    """

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        values = {v: value for _, func in main_functions(mod) for v, value in bindings(func)}
        emptied = {value.args[2] for value in values.values() if _replaces_nan(value, values)}
        masks: dict[int, Masks] = {}

        def visit(r: Any, var: Any, value: Any) -> Any:
            mine = masks.setdefault(id(r), Masks(r, values))
            if _replaces_nan(value, values):
                return r.get(value.args[2])
            if op_name(value) != "nn.softmax" or not _is_over_last(value):
                return r.keep(value)
            found = _separate(mine, value.args[0])
            if found is None:
                return r.keep(value)
            return _outlined(r, value, found[0], mine.any_of(found[1]), var in emptied)

        return rewrite(mod, visit)


def _is_over_last(softmax: Any) -> bool:
    rank = len(shape_of(softmax))
    return int(softmax.attrs.axis) % rank == rank - 1


def _separate(masks: Masks, expr: Any, depth: int = _DEPTH) -> tuple[Any, list[Any]] | None:
    """(what is shown, in the new function; what hides some of it) of a tensor that a softmax reads;
    None where nothing hides in it."""
    value: Any = masks.values.get(expr)
    if constant(expr) is not None:
        return masks.bias_and_mask(expr)
    if not depth or op_name(value) not in ("add", "where"):
        return None
    return _of_sum(masks, expr, value, depth) if op_name(value) == "add" else _of_where(masks, value, depth)


def _of_sum(masks: Masks, expr: Any, value: Any, depth: int) -> tuple[Any, list[Any]] | None:
    """x + mask, or a sum of which a part is masked."""
    for x, mask in sides(value):
        hidden = masks.hidden_by(mask)
        if hidden is not None:
            shown, others = _separate(masks, x, depth - 1) or (masks.r.get(x), [])
            return shown, [hidden, *others]
    parts = [_separate(masks, a, depth - 1) for a in value.args]
    if not any(parts):
        return None
    shown = [part[0] if part else masks.r.get(a) for part, a in zip(parts, value.args, strict=True)]
    total = masks.r.emit(relax.op.add(*shown), masks.r.origins[expr])
    return total, [hidden for part in parts if part for hidden in part[1]]


def _of_where(masks: Masks, value: Any, depth: int) -> tuple[Any, list[Any]] | None:
    """where(c, x, hiding) or where(c, hiding, x)."""
    condition, first, second = value.args
    for x, other, negated in ((second, first, False), (first, second, True)):
        number = constant(other)
        if number is not None and is_hiding(number):
            hidden = masks.condition(condition)
            shown, others = _separate(masks, x, depth - 1) or (masks.r.get(x), [])
            return shown, [masks.negated(hidden) if negated else hidden, *others]
    return None


def _replaces_nan(value: Any, values: Any) -> bool:
    """where(isnan(softmax), 0, softmax): what exports write for rows that are hidden whole."""
    if op_name(value) != "where":
        return False
    condition, zero, kept = (values.get(value.args[0]), constant(value.args[1]), value.args[2])
    asked = op_name(condition) == "isnan" and condition.args[0] == kept
    return asked and op_name(values.get(kept)) == "nn.softmax" and zero is not None and not np.any(zero)


def _outlined(r: Any, softmax: Any, x: Any, hidden: Any, empties: bool) -> Any:
    """A call of a new Composite function of x and hidden, which `empties` rows that are hidden whole."""
    params = [relax.Var("x", x.ty), relax.Var("hidden", hidden.ty)]
    lowest = relax.const(np.finfo(np.float32).min)
    builder = relax.BlockBuilder()
    with builder.function("composite", params):
        with builder.dataflow():
            shown = builder.emit(relax.op.where(params[1], lowest, params[0]))
            found = relax.Call(softmax.op, [shown], softmax.attrs)
            if empties:
                found = relax.op.where(params[1], relax.const(np.float32(0)), builder.emit(found))
            out = builder.emit_output(found)
        builder.emit_func_output(out)
    func = builder.get()["composite"].with_attrs({"Composite": "hwptq.softmax", "Primitive": True})
    func = func.without_attr("global_symbol")
    return relax.Call(r.add_function(func, "hwptq_softmax"), [x, hidden])
