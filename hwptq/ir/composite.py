"""Reading and making a Composite function: the head operator, its bias and its clamp.

FuseConvRelu outlines them; passes that change constants make them anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax

from .dataflow import bindings, composite_name, constant, op_name

#: Begins the attribute Composite of ours.
_PREFIX = "hwptq."


@dataclass(frozen=True)
class Composite:
    """clamp(factor * head(args) + bias) as a call of an outlined function."""

    kind: str  # conv2d, matmul, add …
    head: Any  # the first operator inside; read its attributes only
    args: tuple[Any, ...]  # the caller's arguments of the head
    bias: np.ndarray | None  # [channels] or [1]
    bounds: tuple[Any, Any]  # (low, high): each a float, or one value per channel
    result: Any  # the caller's expression
    factor: float = 1.0  # of a product of two activations


#: Kinds of composites of a head, and what may stand behind it: a bias, a factor, a clamp.
_CHAINS = ("conv2d", "matmul", "add", "group_norm")
#: Kinds of composites that are layers where their second argument is a weight.
LAYERS = ("conv2d", "matmul")


def composite_kind(mod: tvm.IRModule, call: Any) -> str:
    """The kind of the composite that `call` calls, "" where it calls something else."""
    if not isinstance(call, relax.Call) or not isinstance(call.op, tvm.ir.GlobalVar):
        return ""
    name = composite_name(mod[call.op]) or ""
    return name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else ""


def weight_of(call: Any) -> np.ndarray | None:
    """The constant weight that a call of a composite of a layer is given, or None."""
    return constant(call.args[1])


def is_layer(unit: Composite) -> bool:
    """Whether the composite is a convolution or a product."""
    return unit.kind in LAYERS


def is_clamped(unit: Composite) -> bool:
    """Whether a clamp ends the composite."""
    return any(bool(np.any(np.isfinite(b))) for b in unit.bounds)


def read_composite(mod: tvm.IRModule, call: Any) -> Composite | None:
    """The composite that `call` calls, or None where it calls something else."""
    kind = composite_kind(mod, call)
    if not kind:
        return None
    func = mod[call.op]
    actual = dict(zip(func.params, call.args, strict=True))
    (_, head), *rest = bindings(func)
    bias, factor = None, 1.0
    low: Any = -np.inf
    high: Any = np.inf
    for _, value in rest if kind in _CHAINS else ():
        match op_name(value):
            case "add":
                bias = constant(actual[value.args[1]]).reshape(-1)  # type: ignore[union-attr]
            case "multiply":
                factor *= _scalar(actual, value)
            case "divide":
                factor /= _scalar(actual, value)
            case "nn.relu":
                low = 0.0
            case "clip":
                low, high = (float(a.value) for a in value.args[1:3])
            case "maximum":
                low = _per_channel(actual[value.args[1]])
            case "minimum":
                high = _per_channel(actual[value.args[1]])
    args = tuple(actual.get(a, a) for a in head.args)
    return Composite(kind, head, args, bias, (low, high), call, factor)


def _scalar(actual: Any, value: Any) -> float:
    """The number of a product or quotient inside of a composite."""
    numbers = [constant(actual.get(a, a)) for a in value.args]
    return next(float(n.reshape(())) for n in numbers if n is not None)


def emit_layer(r: Any, unit: Composite, data: Any, weight: Any, bias: Any, bounds: Any) -> Any:
    """A call of a conv2d or matmul composite like `unit` with other data, weight, bias and bounds, in place
    of the binding that is rewritten. weight: an array or an expression; bias: array [channels]; bounds as in
    Composite.
    """
    channels = bias.size
    spread = (1, channels, 1, 1) if unit.kind == "conv2d" else (channels,)
    weight = relax.const(weight) if isinstance(weight, np.ndarray) else weight
    constants = [bias, *(np.asarray(b, np.float32) for b in _unlike_relu(bounds))]
    actuals = [data, weight, *(relax.const(np.broadcast_to(c, channels).reshape(spread)) for c in constants)]
    params = [relax.Var(f"p{i}", a.ty) for i, a in enumerate(actuals)]
    builder = relax.BlockBuilder()
    with builder.function("composite", params):
        with builder.dataflow():
            y = builder.emit(relax.Call(unit.head.op, params[:2], unit.head.attrs, unit.head.ty_args))
            y = builder.emit(relax.op.add(y, params[2]))
            for operator, bound in _clamps(bounds, params[3:]):
                y = builder.emit(operator(y) if bound is None else operator(y, bound))
            out = builder.emit_output(y)
        builder.emit_func_output(out)
    kind = f"hwptq.{unit.kind}"
    func = builder.get()["composite"].with_attrs({"Composite": kind, "Primitive": True})
    func = func.without_attr("global_symbol")
    return r.emit(relax.Call(r.add_function(func, kind.replace(".", "_")), actuals), r.origin)


def _unlike_relu(bounds: Any) -> list[Any]:
    """The bounds that need a constant: finite, and no lower one of zero."""
    low, high = bounds
    needed = [low] if np.any(low) else []
    return [b for b in (*needed, high) if np.any(np.isfinite(b))]


def _clamps(bounds: Any, constants: list[Any]) -> list[tuple[Any, Any]]:
    """(operator, its constant or None) of a clamp."""
    low, high = bounds
    left, found = list(constants), []
    if not np.any(low):
        found.append((relax.op.nn.relu, None))
    elif np.any(np.isfinite(low)):
        found.append((relax.op.maximum, left.pop(0)))
    if np.any(np.isfinite(high)):
        found.append((relax.op.minimum, left.pop(0)))
    return found


def _per_channel(expr: Any) -> np.ndarray:
    """A constant bound as an array [channels] or [1]."""
    value = constant(expr)
    assert value is not None
    return value.reshape(-1)
