"""Tabulating an elementwise float function: the values that a 256-entry Lookup quantizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.evaluate.interpret import Interpreter
from hwptq.ir.dataflow import constant


def tabulate(
    mod: tvm.IRModule, values: dict[Any, Any], expr: Any, root: Any, points: np.ndarray
) -> np.ndarray:  # fmt: skip
    """`expr`, an elementwise function of `root`, at each of `points` (float32 [n]) -> float32 [n]."""
    x = relax.Var("x", relax.TensorType(points.shape, "float32"))
    builder = relax.BlockBuilder()
    new: dict[Any, Any] = {root: x}

    def build(node: Any) -> Any:
        value = constant(node)
        if value is not None:
            return relax.const(value.reshape(()))
        if not isinstance(node, relax.Var):
            return node
        if node not in new:
            call = values[node]
            args = [build(a) for a in call.args]
            new[node] = builder.emit(relax.Call(call.op, args, call.attrs, call.ty_args))
        return new[node]

    with builder.function("main", [x]):
        builder.emit_func_output(build(expr))
    with np.errstate(all="ignore"):
        (result,) = Interpreter(builder.get()).run({"x": points})
    return result
