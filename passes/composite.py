"""Reading a Composite function: the head operator, its bias and its clamp (what FuseConvRelu outlined)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax

from .dataflow import bindings, composite_name, constant, op_name


@dataclass(frozen=True)
class Composite:
    """clamp(head(args) + bias) as a call of an outlined function."""

    kind: str  # conv2d, matmul or add
    head: Any  # the first operator inside; read its attributes only
    args: tuple[Any, ...]  # the caller's arguments of the head
    bias: np.ndarray | None  # [channels] or [1]
    bounds: tuple[Any, Any]  # (low, high): each a float, or one value per channel
    result: Any  # the caller's expression


def read_composite(mod: tvm.IRModule, call: Any) -> Composite | None:
    """The composite that `call` calls, or None where it calls something else."""
    if not isinstance(call, relax.Call) or not isinstance(call.op, tvm.ir.GlobalVar):
        return None
    name = composite_name(mod[call.op])
    if name is None or not name.startswith("hwptq."):
        return None
    func = mod[call.op]
    actual = dict(zip(func.params, call.args, strict=True))
    (_, head), *rest = bindings(func)
    bias = None
    low: Any = -np.inf
    high: Any = np.inf
    for _, value in rest:
        match op_name(value):
            case "add":
                bias = constant(actual[value.args[1]]).reshape(-1)  # type: ignore[union-attr]
            case "nn.relu":
                low = 0.0
            case "clip":
                low, high = (float(a.value) for a in value.args[1:3])
            case "maximum":
                low = _per_channel(actual[value.args[1]])
            case "minimum":
                high = _per_channel(actual[value.args[1]])
    args = tuple(actual.get(a, a) for a in head.args)
    return Composite(name.removeprefix("hwptq."), head, args, bias, (low, high), call)


def _per_channel(expr: Any) -> np.ndarray:
    """A constant bound as an array [channels] or [1]."""
    value = constant(expr)
    assert value is not None
    return value.reshape(-1)
