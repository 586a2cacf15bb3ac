"""Tabulating an elementwise float function: the values that a 256-entry Lookup quantizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.evaluate.interpret import Interpreter
from hwptq.ir.dataflow import constant, made_of


def tabulate(
    mod: tvm.IRModule, values: dict[Any, Any], expr: Any, root: Any, points: np.ndarray
) -> np.ndarray:  # fmt: skip
    """`expr`, an elementwise function of `root`, at each of `points` (float32 [n]) -> float32 [n]."""
    x = relax.Var("x", relax.TensorType(points.shape, "float32"))
    builder = relax.BlockBuilder()
    new: dict[Any, Any] = {root: x}

    def argument(node: Any) -> Any:
        value = constant(node)
        return relax.const(value.reshape(())) if value is not None else new.get(node, node)

    with builder.function("main", [x]):
        for var in made_of(expr, root, values):
            call: Any = values[var]
            args = [argument(a) for a in call.args]
            new[var] = builder.emit(relax.Call(call.op, args, call.attrs, call.ty_args))
        builder.emit_func_output(new[expr])
    with np.errstate(all="ignore"):
        (result,) = Interpreter(builder.get()).run({"x": points})
    return result
