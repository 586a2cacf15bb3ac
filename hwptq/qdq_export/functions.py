"""Functions of an element."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from .writer import Converter, NotExportable, Writer, tensor_type

#: Operators that are one ONNX node with the same arguments.
PLAIN = {
    "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "power": "Pow", "maximum": "Max",
    "minimum": "Min", "matmul": "MatMul", "nn.relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh",
    "exp": "Exp", "log": "Log", "erf": "Erf", "sqrt": "Sqrt", "abs": "Abs", "negative": "Neg",
    "floor": "Floor", "ceil": "Ceil", "round": "Round", "sign": "Sign", "sin": "Sin", "cos": "Cos",
    "nn.softplus": "Softplus", "where": "Where", "equal": "Equal",
    "less": "Less", "less_equal": "LessOrEqual", "greater": "Greater", "greater_equal": "GreaterOrEqual",
    "logical_not": "Not", "logical_or": "Or", "logical_and": "And", "logical_xor": "Xor", "tan": "Tan",
    "asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "asinh": "Asinh",
    "acosh": "Acosh", "atanh": "Atanh", "isnan": "IsNaN", "isinf": "IsInf",
}  # fmt: skip


def _clip(w: Writer, call: Any, output: str) -> str:
    bounds = [w.tensor(np.float32(a.value)) for a in call.args[1:3]]
    return w.node("Clip", [w.name(call.args[0]), *bounds], output)


def _leaky(w: Writer, call: Any, output: str) -> str:
    return w.node("LeakyRelu", [w.name(call.args[0])], output, alpha=float(call.attrs.alpha))


def _gelu(w: Writer, call: Any, output: str) -> str:
    """x / 2 * (1 + erf(x / sqrt 2)): Gelu as an operator came with opset 20 only."""
    x = w.name(call.args[0])
    root, one, half = (w.tensor(np.float32(v)) for v in (np.sqrt(2), 1, 0.5))
    erf = w.node("Erf", [w.node("Div", [x, root])])
    return w.node("Mul", [w.node("Mul", [x, half]), w.node("Add", [erf, one])], output)


def _gelu_tanh(w: Writer, call: Any, output: str) -> str:
    """x / 2 * (1 + tanh(sqrt(2 / pi) x * (1 + a x x))), in the order in which TVM computes it."""
    x = w.name(call.args[0])
    one, half, a, root = (w.tensor(np.float32(v)) for v in (1, 0.5, 0.044715, np.sqrt(2 / np.pi)))
    square = w.node("Mul", [w.node("Mul", [a, x]), x])
    tanh = w.node("Tanh", [w.node("Mul", [w.node("Mul", [root, x]), w.node("Add", [one, square])])])
    return w.node("Mul", [w.node("Mul", [half, x]), w.node("Add", [one, tanh])], output)


def _silu(w: Writer, call: Any, output: str) -> str:
    x = w.name(call.args[0])
    return w.node("Mul", [x, w.node("Sigmoid", [x])], output)


def _square(w: Writer, call: Any, output: str) -> str:
    x = w.name(call.args[0])
    return w.node("Mul", [x, x], output)


def _rsqrt(w: Writer, call: Any, output: str) -> str:
    return w.node("Reciprocal", [w.node("Sqrt", [w.name(call.args[0])])], output)


def _cast(w: Writer, call: Any, output: str) -> str:
    return w.node("Cast", [w.name(call.args[0])], output, to=tensor_type(call)[0])


def _not_equal(w: Writer, call: Any, output: str) -> str:
    equal = w.node("Equal", [w.name(a) for a in call.args], w.fresh(f"{output}_equal"))
    return w.node("Not", [equal], output)


def _is_finite(w: Writer, call: Any, output: str) -> str:
    x = w.name(call.args[0])
    return w.node("Not", [w.node("Or", [w.node("IsNaN", [x]), w.node("IsInf", [x])])], output)


def _floor_divide(w: Writer, call: Any, output: str) -> str:
    """Floor of a quotient of floats."""
    if tensor_type(call)[0] != TensorProto.FLOAT:
        raise NotExportable(f"{output}: floor_divide of integers")
    return w.node("Floor", [w.node("Div", [w.name(a) for a in call.args])], output)


def _mod(w: Writer, call: Any, output: str) -> str:
    """The remainder of the sign of what is divided."""
    return w.node("Mod", [w.name(a) for a in call.args], output, fmod=1)


def _floor_mod(w: Writer, call: Any, output: str) -> str:
    """The remainder of the sign of the divisor: Mod is that of integers only."""
    x, y = (w.name(a) for a in call.args)
    if tensor_type(call)[0] != TensorProto.FLOAT:
        return w.node("Mod", [x, y], output)
    whole = w.node("Mul", [w.node("Floor", [w.node("Div", [x, y])]), y])
    return w.node("Sub", [x, whole], output)


CONVERTERS: dict[str, Converter] = {
    "clip": _clip,
    "nn.leakyrelu": _leaky,
    "nn.gelu": _gelu,
    "nn.gelu_tanh": _gelu_tanh,
    "nn.silu": _silu,
    "square": _square,
    "rsqrt": _rsqrt,
    "astype": _cast,
    "not_equal": _not_equal,
    "isfinite": _is_finite,
    "mod": _mod,
    "floor_divide": _floor_divide,
    "floor_mod": _floor_mod,
}
