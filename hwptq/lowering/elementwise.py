"""Functions of one tensor, element by element: chains of operators that one table computes."""

from __future__ import annotations

from typing import Any

from tvm import relax

from hwptq.ir.dataflow import constant, op_name, shape_of

UNARY = {
    "nn.relu", "nn.gelu", "nn.silu", "nn.leakyrelu", "sigmoid", "tanh", "exp", "log", "erf", "sqrt", "rsqrt",
    "abs", "negative", "square", "clip", "sin", "cos", "floor", "ceil", "round", "nn.softplus", "sign",
}  # fmt: skip
BINARY = {"add", "subtract", "multiply", "divide", "maximum", "minimum", "power"}


def is_elementwise(value: Any) -> bool:
    """Whether `value` is a function of its tensor arguments, element by element, scalars aside."""
    name = op_name(value)
    if name in UNARY:
        return True
    return name in BINARY and any(c is not None and c.size == 1 for c in map(constant, value.args))


def elementwise_root(var: Any, values: dict[Any, Any]) -> Any:
    """The tensor of the same shape that `var` is an elementwise function of; `var` itself if there is none.

    x * sigmoid(x) has the root x, a * sigmoid(b) has none.
    """
    value: Any = values.get(var)
    if op_name(value) not in UNARY | BINARY:
        return var
    tensors = [a for a in value.args if isinstance(a, relax.Var)]
    scalars = [c for c in map(constant, value.args) if c is not None]
    roots = {elementwise_root(t, values) for t in tensors}
    if len(roots) != 1 or any(c.size != 1 for c in scalars):
        return var
    (root,) = roots
    return root if shape_of(root) == shape_of(var) else var
