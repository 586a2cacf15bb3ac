"""Which axes of what a node reads run along with an axis of its result, for any node that can tell.

Axes are counted from the end, -1 is the last; one beyond those of a tensor is a new one in front.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax

from hwptq.ir.dataflow import constant, op_name, shape_of, slice_bounds
from hwptq.ir.operator import Operator, Shape, integer_operator

#: axis of the result -> that of each activation, None for one that is read whole; None where nothing does.
Along = Callable[[int], "tuple[int | None, ...] | None"]

_BY_VALUE = {
    "abs", "add", "astype", "ceil", "clip", "cos", "divide", "equal", "erf", "exp", "floor", "floor_divide",
    "floor_mod", "greater", "greater_equal", "less", "less_equal", "log", "logical_and", "logical_not",
    "logical_or", "logical_xor", "maximum", "minimum", "mod", "multiply", "negative", "nn.gelu",
    "nn.gelu_tanh", "nn.leaky_relu", "nn.relu", "nn.silu", "not_equal", "power", "round", "rsqrt", "sigmoid",
    "sign", "sin", "sqrt", "square", "subtract", "tanh", "where",
}  # fmt: skip
REDUCTIONS = frozenset({"max", "mean", "min", "prod", "sum"})
_OVER_AXES = REDUCTIONS | {"nn.layer_norm", "nn.rms_norm", "nn.softmax"}


@dataclass(frozen=True)
class Reading:
    """A node by what runs along: tensors, of which the first are its activations; op: the operator of a
    call_tir."""

    activations: tuple[Any, ...]
    along: Along
    op: Operator | None = None


def reading(mod: tvm.IRModule, value: Any) -> Reading | None:
    """How a node reads its tensors; None where nothing is known of that."""
    op = integer_operator(mod, value)
    if op is not None:
        tensors = tuple(value.args[1].fields)[: op.activations]
        shapes = [shape_of(t) for t in value.args[1].fields]
        return Reading(tensors, lambda axis: op.runs_along(axis, shapes), op)
    name = op_name(value)
    if name in _BY_VALUE:
        tensors = tuple(a for a in value.args if isinstance(a, relax.Var) or constant(a) is not None)
        return Reading(tensors, lambda axis: (axis,) * len(tensors))
    if name == "matmul" and all(len(shape_of(a)) > 1 for a in value.args):
        return Reading(tuple(value.args), _of_product)
    if name == "concat":
        tensors, own = tuple(value.args[0].fields), [_from_end(value, value.attrs.axis)]
        return Reading(tensors, lambda axis: None if axis in own else (axis,) * len(tensors))
    if name == "strided_slice":
        cut = [_from_end(value, a) for a in slice_bounds(value)[0]]
        return Reading((value.args[0],), lambda axis: None if axis in cut else (axis,))
    if name == "tile":
        times = [int(n) for n in value.attrs.repeats]
        return Reading((value.args[0],), lambda axis: (axis,) if padded(times, axis)[axis] == 1 else None)
    if name == "gather_elements":  # places of an axis, each of its own
        chosen = _from_end(value, value.attrs.axis)
        return Reading(tuple(value.args), lambda axis: (None, axis) if axis == chosen else None)
    if name == "take" and constant(value.args[1]) is not None and value.attrs.axis is not None:
        return _of_choice(value)
    if name in _OVER_AXES:
        return _over_axes(value, name)
    return None


def _of_choice(value: Any) -> Reading:
    """Constant places of an axis, which those of the indices stand for in the result."""
    x, rank, many = value.args[0], len(shape_of(value)), len(shape_of(value.args[1]))
    own = int(value.attrs.axis) % len(shape_of(x))

    def along(axis: int) -> tuple[int | None, ...] | None:
        place = rank + axis
        if place < own:
            return (place - len(shape_of(x)),)
        return (axis,) if place >= own + many else None

    return Reading((x,), along)


def _over_axes(value: Any, name: str) -> Reading | None:
    """What computes along some axes that the result has too."""
    x = value.args[0]
    if shape_of(x) != shape_of(value) and not getattr(value.attrs, "keepdims", False):
        return None
    given = value.attrs.axis if hasattr(value.attrs, "axis") else value.attrs.axes
    axes = [given] if isinstance(given, int) else given
    if axes is None:
        return None
    own = [_from_end(x, a) for a in axes]
    return Reading((x,), lambda axis: None if axis in own else (axis,))


def _of_product(axis: int) -> tuple[int | None, ...]:
    return {-1: (None, -1), -2: (-2, None)}.get(axis, (axis, axis))


def _from_end(expr: Any, axis: Any) -> int:
    rank = len(shape_of(expr))
    return int(axis) % rank - rank


def padded(shape: Sequence[int], axis: int) -> Shape:
    """The shape with axes of one value in front, so many that it has `axis`."""
    return (1,) * (-axis - len(shape)) + tuple(shape)
