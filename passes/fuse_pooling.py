"""FusePooling: means and maxima over the tokens that a mask shows become one operator each.

    sum(x * mask) / sum(mask), the divisor kept from 0 or not       -> Composite masked_mean of (x, shown)
    max(where(mask, x, something very negative))                    -> Composite masked_max of (x, shown)

of x [N, S, C] over S, the mask of ones and zeros, the same for all channels. The results are the same but
where a mask shows nothing at all: the mean is 0 then.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.ir.dataflow import bindings, main_functions, rewrite, shape_of

from .graph.mask_traces import Trace
from .graph.poolings import Pooling, pooling_of


@tvm.transform.module_pass(opt_level=0, name="hwptq.FusePooling")
class FusePooling:
    """Means and maxima over a mask -> one Composite each of (x float32 [N, S, C], shown bool [N, S]).

    Stands before FuseConvRelu.
    """

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        found: dict[Any, Pooling] = {}
        for _, func in main_functions(mod):
            values = dict(bindings(func))
            for var, value in values.items():
                pooling = pooling_of(value, values)
                if pooling is not None:
                    found[var] = pooling

        def visit(r: Any, var: Any, value: Any) -> Any:
            return _outlined(r, found[var], shape_of(var)) if var in found else r.keep(value)

        return rewrite(mod, visit) if found else mod


def _outlined(r: Any, pooling: Pooling, shape: tuple[int, ...]) -> Any:
    """A call of a new Composite function of x and what is shown, in the shape of what it stands for."""
    x, mask = r.get(pooling.x), pooling.mask
    n, _, channels = shape_of(pooling.x)
    func = _FUNCTIONS[pooling.kind](x, mask.index.shape)
    func = func.with_attrs({"Composite": f"hwptq.{pooling.kind}", "Primitive": True})
    callee = r.add_function(func.without_attr("global_symbol"), f"hwptq_{pooling.kind}")
    call = relax.Call(callee, [x, _shown(r, mask)])
    return call if shape == (n, channels) else relax.op.reshape(r.emit(call), shape)


def _shown(r: Any, mask: Trace) -> Any:
    """The mask as a boolean [N, S] of the new function."""
    root = r.get(mask.root)
    dtype = str(mask.root.ty.dtype)
    if dtype != "bool":
        root = r.emit(relax.op.not_equal(root, relax.const(0, dtype)))
    if mask.negated:
        root = r.emit(relax.op.logical_not(root))
    if np.array_equal(mask.index.reshape(-1), np.arange(np.prod(shape_of(mask.root)))):
        return (
            root
            if shape_of(mask.root) == mask.index.shape
            else r.emit(relax.op.reshape(root, mask.index.shape))
        )
    flat = r.emit(relax.op.reshape(root, (-1,)))
    return r.emit(relax.op.take(flat, relax.const(mask.index.astype(np.int64)), axis=0))


def _masked_mean(x: Any, masked: tuple[int, ...]) -> Any:
    """The sum of what is shown over how many that are, at least 1."""
    params = [relax.Var("x", x.ty), relax.Var("shown", relax.TensorType(masked, "bool"))]
    builder = relax.BlockBuilder()
    with builder.function("composite", params):
        with builder.dataflow():
            each = builder.emit(relax.op.expand_dims(params[1], [2]))
            kept = builder.emit(relax.op.where(each, params[0], relax.const(np.float32(0))))
            total = builder.emit(relax.op.sum(kept, [1]))
            ones = builder.emit(relax.op.astype(each, "float32"))
            count = builder.emit(relax.op.sum(ones, [1]))
            count = builder.emit(relax.op.maximum(count, relax.const(np.float32(1))))
            out = builder.emit_output(relax.op.divide(total, count))
        builder.emit_func_output(out)
    return builder.get()["composite"]


def _masked_max(x: Any, masked: tuple[int, ...]) -> Any:
    params = [relax.Var("x", x.ty), relax.Var("shown", relax.TensorType(masked, "bool"))]
    builder = relax.BlockBuilder()
    with builder.function("composite", params):
        with builder.dataflow():
            each = builder.emit(relax.op.expand_dims(params[1], [2]))
            lowest = relax.const(np.finfo(np.float32).min)
            kept = builder.emit(relax.op.where(each, params[0], lowest))
            out = builder.emit_output(relax.op.max(kept, [1]))
        builder.emit_func_output(out)
    return builder.get()["composite"]


_FUNCTIONS = {"masked_mean": _masked_mean, "masked_max": _masked_max}
