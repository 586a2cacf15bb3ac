"""FuseNorms: norms that an export wrote out become nn.rms_norm and nn.layer_norm, and L2 norms the former.

    x / sqrt(mean(x^2) + eps) [* gamma]                 -> rms_norm(x, gamma)
    d / sqrt(mean(d^2) + eps) [* gamma] [+ beta], d = x - mean(x)       -> layer_norm(x, gamma, beta)
    d / sqrt(max(mean(x^2) - mean(x)^2, 0) + eps) …     -> the same
    x / sqrt(sum(x^2) [+ eps])                          -> rms_norm(x, 1 / sqrt(C)), with eps / C

all over one axis, between two transpositions if it is not the last; a division may be a product with a
reciprocal or a power (and that with gamma first), a square a power or a product, a mean a sum times a number,
and the root of an L2 norm may be kept from 0 by a maximum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.ir.dataflow import Rewriter, bindings, constant, main_functions, op_name, rewrite, shape_of

from .graph.reduced import MOVES, Values, number, reduced

_SMALL = 1e-3  # what keeps a root from 0 is smaller


@dataclass(frozen=True)
class Norm:
    """gamma * (x or x - mean(x)) / sqrt(mean of its squares + eps) + beta over an axis of x, which has C
    elements, as gamma and beta have."""

    x: Any
    axis: int
    centered: bool
    eps: float
    gamma: np.ndarray
    beta: np.ndarray | None = None

    def emit(self, r: Rewriter) -> Any:
        """The operator of Relax, on the new expression of x. A beta needs a layer norm."""
        x, rank = r.get(self.x), len(shape_of(self.x))
        turn = [i for i in range(rank) if i != self.axis] + [self.axis]
        if self.axis == rank - 1:
            return self._call(x)
        normed = r.emit(self._call(r.emit(relax.op.permute_dims(x, turn))))
        return relax.op.permute_dims(normed, list(map(int, np.argsort(turn))))

    def _call(self, x: Any) -> Any:
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
            return found[var].emit(r) if var in found else r.keep(value)

        return rewrite(mod, visit) if found else mod


def _norm(var: Any, values: Values, found: Mapping[Any, Norm]) -> Norm | None:
    """The norm whose result is `var`: one of those found with a gamma or a beta behind it, or a new one."""
    value = values[var]
    if str(getattr(var.ty, "dtype", "")) != "float32" or op_name(value) not in ("add", "multiply", "divide"):
        return None
    for source, other in (tuple(value.args), tuple(value.args[::-1])):
        inner = found.get(source)
        vector = None if inner is None else _vector(other, var, inner.axis)
        if inner is None or vector is None or inner.beta is not None:
            continue
        if op_name(value) == "multiply":
            return replace(inner, gamma=inner.gamma * vector)
        if op_name(value) == "add" and inner.centered:
            return replace(inner, beta=vector)
    return _quotient(var, value, values)


def _vector(expr: Any, var: Any, axis: int) -> np.ndarray | None:
    """A constant with one value for each element of an axis of `var`, or one for all, as [C]."""
    array, shape = constant(expr), shape_of(var)
    if array is None or array.ndim > len(shape):
        return None
    wide = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    if wide.size not in (1, wide.shape[axis]) or wide.shape[axis] not in (1, shape[axis]):
        return None
    return np.broadcast_to(array.reshape(-1), (shape[axis],)).astype(np.float64)


def _quotient(var: Any, value: Any, values: Values) -> Norm | None:
    """x divided by a root of its squares, or multiplied with the reciprocal of one."""
    if op_name(value) == "divide":
        choices = [(value.args[0], _root(value.args[1], values), None)]
    elif op_name(value) == "multiply":
        orders = (tuple(value.args), tuple(value.args[::-1]))
        choices = [(x, *_reciprocal(factor, values)) for x, factor in orders]
    else:
        return None
    for x, squares, gamma in choices:
        if squares is None or not isinstance(x, relax.Var):
            continue
        found = _of_squares(x, squares, values)
        if found is None or shape_of(found.x) != shape_of(var):
            continue
        vector = np.ones(()) if gamma is None else _vector(gamma, var, found.axis)
        if vector is not None:
            return replace(found, gamma=found.gamma * vector)
    return None


def _of_squares(x: Any, squares: Any, values: Values) -> Norm | None:
    """The norm x / sqrt(squares)."""
    squares, eps = _and_number(_moved(squares, values), values)
    squares = _moved(squares, values)
    center, of = _center(x, values), reduced(squares, values, beside=False)
    squared = None if of is None else _squared(of.x, values)
    if center is not None:
        source, axis = center
        deviation = squared is not None and (squared == x or _center(squared, values) == center)
        of_deviation = of is not None and deviation and of.is_mean and of.axis == axis
        if of_deviation or _is_variance(squares, source, axis, values):
            return Norm(source, axis, True, eps, np.ones(shape_of(source)[axis]))
    if of is None or squared != x:
        return None
    if of.is_mean:
        return Norm(x, of.axis, False, eps, np.ones(of.count))
    if of.factor == 1:
        return Norm(x, of.axis, False, eps / of.count, np.full(of.count, of.count**-0.5))
    return None


def _center(d: Any, values: Values) -> tuple[Any, int] | None:
    """(x, axis) of d = x - mean(x over axis), or None."""
    value: Any = values.get(d)
    if op_name(value) != "subtract":
        return None
    x, of = value.args[0], reduced(value.args[1], values)
    return (x, of.axis) if of is not None and of.is_mean and of.x == x else None


def _is_variance(var: Any, x: Any, axis: int, values: Values) -> bool:
    """Whether it is mean(x^2) - mean(x)^2."""
    value: Any = values.get(var)
    if op_name(value) != "subtract":
        return False
    of_squares = reduced(value.args[0], values, beside=False)
    mean = reduced(_squared(value.args[1], values), values, beside=False)
    if of_squares is None or mean is None or not (of_squares.is_mean and mean.is_mean):
        return False
    return _squared(of_squares.x, values) == x == mean.x and of_squares.axis == axis == mean.axis


def _squared(var: Any, values: Values) -> Any:
    """The x of x^2, or None."""
    value: Any = values.get(var)
    match op_name(value):
        case "square":
            return value.args[0]
        case "multiply" if value.args[0] == value.args[1]:
            return value.args[0]
        case "power" if number(value.args[1]) == 2:
            return value.args[0]
    return None


def _moved(var: Any, values: Values) -> Any:
    """What is repeated or kept from being negative."""
    value: Any = values.get(var)
    while op_name(value) in (*MOVES, "maximum", "clip", "nn.relu"):
        if op_name(value) == "clip" and number(value.args[1]) != 0:
            return var
        x, kept = value.args[0], value.args[1] if op_name(value) == "maximum" else None
        if kept is not None:
            x, kept = (x, kept) if number(kept) is not None else (kept, x)
            if number(kept) != 0:
                return var
        var, value = x, values.get(x)
    return var


def _root(var: Any, values: Values) -> Any:
    """The y of sqrt(y), which may be moved, or kept from 0; None for anything else."""
    value: Any = values.get(var)
    while op_name(value) in (*MOVES, "maximum", "clip", "add"):
        if op_name(value) in ("maximum", "add"):
            least = number(value.args[1])
            if least is None or not 0 <= least <= _SMALL:
                return None
        if op_name(value) == "clip" and not 0 <= number(value.args[1]) <= _SMALL:
            return None
        value = values.get(value.args[0])
    if op_name(value) == "sqrt":
        return value.args[0]
    if op_name(value) == "power" and number(value.args[1]) == 0.5:
        return value.args[0]
    return None


def _reciprocal(var: Any, values: Values) -> tuple[Any, Any]:
    """(y, gamma) of gamma / sqrt(y), gamma None where there is none; y None for anything else."""
    value: Any = values.get(var)
    match op_name(value):
        case "multiply":
            for part, other in (tuple(value.args), tuple(value.args[::-1])):
                y, gamma = _reciprocal(part, values)
                if y is not None and gamma is None and constant(other) is not None:
                    return y, other
        case name if name in MOVES:
            y, gamma = _reciprocal(value.args[0], values)
            return (y, None) if gamma is None else (None, None)
        case "rsqrt":
            return value.args[0], None
        case "divide" if number(value.args[0]) == 1:
            return _root(value.args[1], values), None
        case "power" if number(value.args[1]) == -0.5:
            return value.args[0], None
        case "power" if number(value.args[1]) == -1:
            return _root(value.args[0], values), None
    return None, None


def _and_number(var: Any, values: Values) -> tuple[Any, float]:
    """(y, number) of y + number; (var, 0) for anything else."""
    value: Any = values.get(var)
    if op_name(value) != "add":
        return var, 0.0
    for y, other in (tuple(value.args), tuple(value.args[::-1])):
        added = number(other)
        if added is not None and isinstance(y, relax.Var):
            return y, added
    return var, 0.0
