"""FuseNorms: norms that an export wrote out become nn.rms_norm and nn.layer_norm, and L2 norms the former.

    x / sqrt(mean(x^2) + eps) [* gamma]                 -> rms_norm(x, gamma)
    d / sqrt(mean(d^2) + eps) [* gamma] [+ beta], d = x - mean(x)       -> layer_norm(x, gamma, beta)
    x / sqrt(sum(x^2) [+ eps])                          -> rms_norm(x, 1 / sqrt(C)), with eps / C

all over the last axis; a division may be a product with a reciprocal or a power, a square a power or a
product, and the root of an L2 norm may be kept from 0 by a maximum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.ir.dataflow import bindings, constant, main_functions, op_name, rewrite, shape_of

_SMALL = 1e-3  # what keeps a root from 0 is smaller


@dataclass(frozen=True)
class Norm:
    """gamma * (x or x - mean(x)) / sqrt(mean of its squares + eps) + beta over the last axis of x."""

    x: Any
    centered: bool
    eps: float
    gamma: np.ndarray
    beta: np.ndarray | None = None

    def call(self, x: Any) -> Any:
        """The operator of Relax, of the expression `x`. A beta needs a layer norm."""
        gamma = relax.const(self.gamma.astype(np.float32))
        if not self.centered:
            return relax.op.nn.rms_norm(x, gamma, axes=[-1], epsilon=self.eps)
        beta = np.zeros_like(self.gamma) if self.beta is None else self.beta
        return relax.op.nn.layer_norm(x, gamma, relax.const(beta.astype(np.float32)), [-1], self.eps)


@tvm.transform.module_pass(opt_level=0, name="hwptq.FuseNorms")
class FuseNorms:
    """Norms in several steps become one operator each. Stands before FuseConvRelu."""

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        found: dict[Any, Norm] = {}
        for _, func in main_functions(mod):
            values = dict(bindings(func))
            for var in values:
                norm = _norm(var, values, found)
                if norm is not None:
                    found[var] = norm

        def visit(r: Any, var: Any, value: Any) -> Any:
            return found[var].call(r.get(found[var].x)) if var in found else r.keep(value)

        return rewrite(mod, visit) if found else mod


def _norm(var: Any, values: Mapping[Any, Any], found: Mapping[Any, Norm]) -> Norm | None:
    """The norm whose result is `var`: one of those found with a gamma or a beta behind it, or a new one."""
    value = values[var]
    if str(getattr(var.ty, "dtype", "")) != "float32" or op_name(value) not in ("add", "multiply", "divide"):
        return None
    for source, other in (tuple(value.args), tuple(value.args[::-1])):
        inner, vector = found.get(source), _vector(other, var)
        if inner is None or vector is None or inner.beta is not None:
            continue
        if op_name(value) == "multiply":
            return replace(inner, gamma=inner.gamma * vector)
        if op_name(value) == "add" and inner.centered:
            return replace(inner, beta=vector)
    return _quotient(var, value, values)


def _vector(expr: Any, var: Any) -> np.ndarray | None:
    """A constant with one value for each element of the last axis of `var`, or one for all, as [C]."""
    array, count = constant(expr), shape_of(var)[-1]
    if array is None or array.size not in (1, count) or (array.size > 1 and array.shape[-1] != count):
        return None
    return np.broadcast_to(array.reshape(-1), (count,)).astype(np.float64)


def _quotient(var: Any, value: Any, values: Mapping[Any, Any]) -> Norm | None:
    """x divided by a root of its squares, or multiplied with the reciprocal of one."""
    name = op_name(value)
    if name == "divide":
        pairs = [(value.args[0], _root(value.args[1], values))]
    elif name == "multiply":
        orders = (tuple(value.args), tuple(value.args[::-1]))
        pairs = [(x, _reciprocal_root(factor, values)) for x, factor in orders]
    else:
        return None
    for x, squares in pairs:
        if squares is None or not isinstance(x, relax.Var):
            continue
        found = _of_squares(x, squares, values)
        if found is not None and shape_of(found.x) == shape_of(var):
            return found
    return None


def _of_squares(x: Any, squares: Any, values: Mapping[Any, Any]) -> Norm | None:
    """The norm x / sqrt(squares)."""
    squares, eps = _and_number(squares, values, "add")
    value: Any = values.get(squares)
    if (
        op_name(value) not in ("mean", "sum")
        or not _over_last(value)
        or not _is_square(value.args[0], x, values)
    ):
        return None
    count = shape_of(x)[-1]
    if op_name(value) == "sum":
        return Norm(x, False, eps / count, np.full(count, count**-0.5))
    source = _centered_of(x, values)
    if source is None:
        return Norm(x, False, eps, np.ones(count))
    return Norm(source, True, eps, np.ones(count))


def _centered_of(d: Any, values: Mapping[Any, Any]) -> Any:
    """The x of d = x - mean(x), or None."""
    value: Any = values.get(d)
    if op_name(value) != "subtract":
        return None
    x, mean = value.args
    of: Any = values.get(mean)
    return x if op_name(of) == "mean" and of.args[0] == x and _over_last(of) else None


def _over_last(reduction: Any) -> bool:
    rank = len(shape_of(reduction.args[0]))
    axes = reduction.attrs.axis
    return axes is not None and [int(a) % rank for a in axes] == [rank - 1] and bool(reduction.attrs.keepdims)


def _is_square(var: Any, x: Any, values: Mapping[Any, Any]) -> bool:
    value: Any = values.get(var)
    match op_name(value):
        case "square":
            return bool(value.args[0] == x)
        case "multiply":
            return bool(value.args[0] == x and value.args[1] == x)
        case "power":
            return bool(value.args[0] == x and _number(value.args[1]) == 2)
    return False


def _root(var: Any, values: Mapping[Any, Any]) -> Any:
    """The y of sqrt(y), which may be moved, or kept from 0; None for anything else."""
    value: Any = values.get(var)
    while op_name(value) in ("broadcast_to", "maximum", "clip", "add"):
        if op_name(value) in ("maximum", "add"):
            number = _number(value.args[1])
            if number is None or not 0 <= number <= _SMALL:
                return None
        if op_name(value) == "clip" and not 0 <= _number(value.args[1]) <= _SMALL:
            return None
        value = values.get(value.args[0])
    if op_name(value) == "sqrt":
        return value.args[0]
    if op_name(value) == "power" and _number(value.args[1]) == 0.5:
        return value.args[0]
    return None


def _reciprocal_root(var: Any, values: Mapping[Any, Any]) -> Any:
    """The y of 1 / sqrt(y), or None."""
    value: Any = values.get(var)
    match op_name(value):
        case "rsqrt":
            return value.args[0]
        case "divide" if _number(value.args[0]) == 1:
            return _root(value.args[1], values)
        case "power" if _number(value.args[1]) == -0.5:
            return value.args[0]
        case "power" if _number(value.args[1]) == -1:
            return _root(value.args[0], values)
    return None


def _and_number(var: Any, values: Mapping[Any, Any], name: str) -> tuple[Any, float]:
    """(y, number) of y + number; (var, 0) for anything else."""
    value: Any = values.get(var)
    if op_name(value) != name:
        return var, 0.0
    for y, other in (tuple(value.args), tuple(value.args[::-1])):
        number = _number(other)
        if number is not None and isinstance(y, relax.Var):
            return y, number
    return var, 0.0


def _number(expr: Any) -> Any:
    """The value of a constant of one element, or of a number in a call; None for anything else."""
    array = constant(expr)
    if array is not None:
        return float(array.reshape(())) if array.size == 1 else None
    return float(expr.value) if hasattr(expr, "value") and not isinstance(expr, relax.Var) else None
