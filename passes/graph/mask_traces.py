"""What a mask of ones and zeros comes from: the booleans or integers that it is a copy of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import relax

from hwptq.ir.dataflow import constant, op_name, shape_of
from hwptq.ir.movement import REARRANGED, SAME_ORDER, order_of_axes


@dataclass(frozen=True)
class Trace:
    """A tensor that is 1 where an element of `root` is not 0, and else 0; the other way round if `negated`.

    root: a var of booleans, or an integer input of the function, which masks are handed over as; index: the
    element of it, flattened, that each element of the tensor tells of.
    """

    root: Any
    index: np.ndarray
    negated: bool = False

    def tells_the_same(self, other: Trace) -> bool:
        """Whether both tensors are equal, broadcast to each other."""
        if (self.root, self.negated) != (other.root, other.negated):
            return False
        try:
            return bool(np.all(self.index == other.index))
        except ValueError:
            return False


def trace(expr: Any, values: Mapping[Any, Any]) -> Trace | None:
    """Where a tensor that is a mask comes from; None for any other. values: var -> its expression."""
    value: Any = values.get(expr)
    found = _computed(value, values)
    return found if found is not None else _root(expr, value)


def moved(call: Any, index: np.ndarray) -> np.ndarray | None:
    """What a data movement makes of an array; None for any other call."""
    name = op_name(call)
    if name in SAME_ORDER:
        return index.reshape(shape_of(call))
    if name == "broadcast_to":
        return np.broadcast_to(index, shape_of(call))
    if name == "permute_dims":
        return np.transpose(index, order_of_axes(call))
    return None


def _computed(value: Any, values: Mapping[Any, Any]) -> Trace | None:
    match op_name(value):
        case "astype":
            return trace(value.args[0], values)
        case "logical_not":
            return _negated(trace(value.args[0], values))
        case "not_equal" if _is(value.args[1], 0):
            return trace(value.args[0], values)
        case "equal" if _is(value.args[1], 0):
            return _negated(trace(value.args[0], values))
        case "subtract" if _is(value.args[0], 1):
            return _negated(trace(value.args[1], values))
        case "where":
            return _chosen(value, values)
        case "multiply":
            return _repeated(value, values)
    inner = trace(value.args[0], values) if moved_name(value) else None
    if inner is None:
        return None
    index = moved(value, inner.index)
    return None if index is None else replace(inner, index=index)


def moved_name(value: Any) -> bool:
    """Whether a call is a data movement that is followed."""
    return op_name(value) in (*REARRANGED, "broadcast_to")


def _root(expr: Any, value: Any) -> Trace | None:
    if not isinstance(expr, relax.Var):
        return None
    dtype = str(getattr(expr.ty, "dtype", ""))
    handed_over = value is None and dtype.startswith(("int", "uint"))
    if dtype != "bool" and not handed_over:
        return None
    shape = shape_of(expr)
    return Trace(expr, np.arange(int(np.prod(shape))).reshape(shape))


def _negated(found: Trace | None) -> Trace | None:
    return None if found is None else replace(found, negated=not found.negated)


def _chosen(value: Any, values: Mapping[Any, Any]) -> Trace | None:
    """where(condition, 1, 0), or where(condition, 0, 1)."""
    condition, on, off = value.args
    if not (_is(on, 1) and _is(off, 0)) and not (_is(on, 0) and _is(off, 1)):
        return None
    found = trace(condition, values)
    if found is None:
        return None
    found = replace(found, index=np.broadcast_to(found.index, shape_of(value)))
    return found if _is(on, 1) else _negated(found)


def _repeated(value: Any, values: Mapping[Any, Any]) -> Trace | None:
    """A product with ones: what an Expand may become."""
    for x, ones in (tuple(value.args), tuple(value.args[::-1])):
        if _is(ones, 1):
            found = trace(x, values)
            return (
                None if found is None else replace(found, index=np.broadcast_to(found.index, shape_of(value)))
            )
    return None


def _is(expr: Any, number: float) -> bool:
    """Whether an expression is a constant that is this number in all its elements."""
    array = constant(expr)
    return array is not None and array.size > 0 and bool(np.all(array == number))
