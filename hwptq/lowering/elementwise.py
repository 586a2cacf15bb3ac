"""Functions of one tensor, element by element: chains of operators that one table computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import relax

from hwptq.ir.dataflow import constant, op_name, shape_of

UNARY = {
    "nn.relu", "nn.gelu", "nn.silu", "nn.leakyrelu", "sigmoid", "tanh", "exp", "log", "erf", "sqrt", "rsqrt",
    "abs", "negative", "square", "clip", "sin", "cos", "floor", "ceil", "round", "nn.softplus", "sign",
    "nn.gelu_tanh", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh",
}  # fmt: skip
BINARY = {"add", "subtract", "multiply", "divide", "maximum", "minimum", "power"}
#: What IEEE 754 rounds in one way, and code computes without a library.
_EXACT = {"nn.relu", "nn.leakyrelu", "sqrt", "abs", "negative", "square", "clip"} | (BINARY - {"power"})


def is_elementwise(value: Any) -> bool:
    """Whether `value` is a function of its tensor arguments, element by element, scalars aside."""
    name = op_name(value)
    if name in UNARY:
        return True
    return name in BINARY and any(c is not None and c.size == 1 for c in map(constant, value.args))


def is_exact(value: Any) -> bool:
    """Whether an elementwise function gives the same float32 bits on every device, bare metal too."""
    if op_name(value) == "power":
        exponent = constant(value.args[1])
        return exponent is not None and exponent.size == 1 and exponent.item() == 2
    return op_name(value) in _EXACT


def is_linear(value: Any) -> bool:
    """Whether `value` is its one tensor times a number."""
    name = op_name(value)
    if name == "negative":
        return True
    number = {"multiply": 0, "divide": 1}.get(name)
    return number is not None and any(
        c is not None and c.size == 1 for c in map(constant, list(value.args)[number:])
    )


def elementwise_root(var: Any, values: Mapping[Any, Any]) -> Any:
    """The tensor of the same shape that `var` is an elementwise function of; `var` itself if there is none.

    x * sigmoid(x) has the root x, a * sigmoid(b) has none.
    """
    roots: dict[Any, Any] = {}
    waiting = [var]
    while waiting:
        missing = [t for t in _operands(waiting[-1], values) if t not in roots]
        waiting += missing
        if not missing:
            last = waiting.pop()
            roots[last] = _root(last, values, roots)
    return roots[var]


def elementwise_roots(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """The elementwise root of each var; `values` has them in the order of their bindings."""
    roots: dict[Any, Any] = {}
    for var in values:
        roots[var] = _root(var, values, roots)
    return roots


def _root(var: Any, values: Mapping[Any, Any], roots: Mapping[Any, Any]) -> Any:
    """The root of a var, from those of what it reads."""
    found = {roots.get(tensor, tensor) for tensor in _operands(var, values)}
    if len(found) != 1:
        return var
    (root,) = found
    return root if shape_of(root) == shape_of(var) else var


def _operands(var: Any, values: Mapping[Any, Any]) -> list[Any]:
    """The tensors that a var is an elementwise function of, scalars aside; none if it is no such function."""
    value: Any = values.get(var)
    if op_name(value) not in UNARY | BINARY:
        return []
    if any(c is not None and c.size != 1 for c in map(constant, value.args)):
        return []
    return [a for a in value.args if isinstance(a, relax.Var)]
