"""A function of one token becomes one of several: an axis of so many grows along all that is of a token.

A tensor of a step keeps its shape but for one axis of a single value, which becomes that of the tokens (a new
one in front, where there is none): [1,1,256] -> [1,T,256], [1,8,1,32] -> [1,8,T,32]. Which axis it is follows
from node to node, so that a node reads T rows where it read one. All else, constants and what is of no token,
stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import tvm
from tvm import relax

from hwptq.ir.dataflow import Rewriter, op_name, shape_of
from hwptq.ir.movement import SAME_ORDER, order_of_axes
from hwptq.ir.operator import Operator, Shape, to_json
from hwptq.ir.provenance import label_of
from hwptq.tir.kernel import TensorType

from .axes_along import REDUCTIONS, Reading, padded, reading

_MOVED = 1000  # cost of a copy that puts the tokens elsewhere, beside that of another shape


@dataclass(frozen=True)
class Tokens:
    """What stands for a tensor [shape] of a step: `expr` has the tokens on `axis` (from the end), where the
    step has one value, or nothing yet."""

    expr: Any
    shape: Shape
    axis: int

    @property
    def step(self) -> Shape:
        """The shape with one value on the axis."""
        return padded(self.shape, self.axis)

    @property
    def before(self) -> int:
        """Elements of a step before the axis: with other shapes of as many, the tokens lie alike."""
        return prod(self.step[: self.axis])


@dataclass
class Growing:
    """Emits nodes for `count` tokens into a new function. mod: of the step."""

    mod: tvm.IRModule
    r: Rewriter
    count: int
    _functions: dict[Any, Any] = field(default_factory=dict)

    def shape(self, step: Sequence[int], axis: int) -> Shape:
        """A shape of a step with the tokens on an axis."""
        wide = list(padded(step, axis))
        wide[axis] = self.count
        return tuple(wide)

    def placed(self, tokens: Tokens, axis: int) -> Any:
        """The tensor with the tokens on another axis, of one value in the step."""
        if axis == tokens.axis:
            return tokens.expr
        if padded(tokens.shape, axis)[axis] != 1:
            raise ValueError(f"axis {axis} of {tokens.shape} has several values")
        if prod(padded(tokens.shape, axis)[:axis]) == tokens.before:
            return self._reshaped(tokens.expr, self.shape(tokens.shape, axis))
        axes = min(axis, tokens.axis)
        wide = padded(tokens.shape, axes)
        source, target = len(wide) + tokens.axis, len(wide) + axis
        order = [i if i < target else i - 1 for i in range(len(wide) + 1)]
        order[target] = -1
        inserted = self._reshaped(tokens.expr, (*wide[:source], self.count, *wide[source:]))
        turned = [source if i < 0 else i + (i >= source) for i in order]
        moved = self.r.emit(relax.op.permute_dims(inserted, turned))
        return self._reshaped(moved, self.shape(tokens.shape, axis))

    def _reshaped(self, expr: Any, shape: Shape) -> Any:
        return expr if shape_of(expr) == shape else self.r.emit(relax.op.reshape(expr, shape))

    def grown(self, var: Any, value: Any, held: Sequence[Tokens | Any]) -> Tokens:
        """A node of a step for all tokens. held: of each tensor that it reads, in order, what stands for it.

        Raises ValueError, which names the node, where it is not known how it would read several.
        """
        name, step = op_name(value), shape_of(var)
        if name in SAME_ORDER:
            return self._in_order(held[0], step)
        if name == "permute_dims":
            return self._turned(held[0], value, step)
        if name == "broadcast_to":
            return self._spread(held[0], step)
        if name == "take" and isinstance(held[1], Tokens) and not isinstance(held[0], Tokens):
            return self._taken(value, held[0], held[1], step)
        found = reading(self.mod, value)
        grown = self._along(var, value, found, held, step) if found is not None else None
        if grown is None:
            raise ValueError(
                f"node {label_of(var, value)}: how it would compute several tokens at once is not known"
            )
        return grown

    def _in_order(self, x: Tokens, step: Shape) -> Tokens:
        """What changes the shape alone: the tokens stay where they are, if the new shape has such a place."""
        for axis in _places(step):
            if prod(padded(step, axis)[:axis]) == x.before:
                return Tokens(self._reshaped(x.expr, self.shape(step, axis)), step, axis)
        front = self.placed(x, -len(x.shape) - 1)
        return Tokens(self._reshaped(front, (self.count, *step)), step, -len(step) - 1)

    def _turned(self, x: Tokens, value: Any, step: Shape) -> Tokens:
        rank, order = len(step), order_of_axes(value)
        if -x.axis <= rank:
            turned = self.r.emit(relax.op.permute_dims(x.expr, order))
            return Tokens(turned, step, order.index(rank + x.axis) - rank)
        front = self.placed(x, -rank - 1)
        turned = self.r.emit(relax.op.permute_dims(front, [0, *(a + 1 for a in order)]))
        return Tokens(turned, step, -rank - 1)

    def _spread(self, x: Tokens, step: Shape) -> Tokens:
        fits = -x.axis > len(step) or step[x.axis] == 1
        axis = x.axis if fits else -len(step) - 1
        wide = self.shape(step, axis)
        return Tokens(self.r.emit(relax.op.broadcast_to(self.placed(x, axis), wide)), step, axis)

    def _taken(self, value: Any, table: Any, index: Tokens, step: Shape) -> Tokens:
        """Rows of a table by the tokens' numbers."""
        rank = len(shape_of(table))
        along = 0 if value.attrs.axis is None else int(value.attrs.axis) % rank
        if -index.axis > len(index.shape) and along:
            moved = self.placed(index, -len(index.shape)) if index.shape[:1] == (1,) else None
            if moved is None:
                raise ValueError(f"node {label_of(None, value)}: rows of an inner axis by a single number")
            index = Tokens(moved, index.shape, -len(index.shape))
        call = relax.Call(value.op, [table, index.expr], value.attrs, value.ty_args)
        return Tokens(self.r.emit(call), step, index.axis - (rank - along - 1))

    def _along(
        self, var: Any, value: Any, found: Reading, held: Sequence[Tokens | Any], step: Shape
    ) -> Tokens | None:
        """A node that reads T rows where it read one: on the axis that costs least."""
        activations = held[: len(found.activations)]
        wide = op_name(value) != "call_tir" or found.op is None or found.along(-len(step) - 1) is not None
        places = [(_cost(activations, found, axis), i, axis) for i, axis in enumerate(_places(step, wide))]
        fitting = [(cost, i, axis) for cost, i, axis in places if cost is not None]
        if not fitting:
            return None
        _, _, axis = min(fitting)
        along = found.along(axis)
        assert along is not None
        tensors = [
            self.placed(x, at) if isinstance(x, Tokens) and at is not None else x
            for x, at in zip(activations, along, strict=True)
        ]
        expr = self._rebuilt(var, value, found, tensors, held, self.shape(step, axis), along)
        return Tokens(expr, step, axis)

    def _rebuilt(
        self, var: Any, value: Any, found: Reading, tensors: list[Any], held: Sequence[Any], shape: Shape,
        along: Sequence[int | None],
    ) -> Any:  # fmt: skip
        if found.op is not None:
            if not found.op.by_value:
                tensors = [self._widened(t, x, at) for t, x, at in zip(tensors, held, along, strict=False)]
            return self.operator(found.op, [*tensors, *held[len(tensors) :]], shape, str(var.ty.dtype))
        if op_name(value) == "concat":
            joined = relax.Tuple(
                [self._widened(t, x, at) for t, x, at in zip(tensors, held, along, strict=True)]
            )
            axis = int(value.attrs.axis) % len(shape_of(value)) - len(shape_of(value))
            return self.r.emit(relax.op.concat(joined, axis=len(shape) + axis))
        if op_name(value) == "strided_slice":
            return self._sliced(value, tensors[0], len(shape))
        rest = list(value.args[len(tensors) :])
        make = _over_the_same_axes(value)
        if make is not None:
            return self.r.emit(make(tensors, rest))
        return self.r.emit(relax.Call(value.op, [*tensors, *rest], value.attrs, value.ty_args))

    def _widened(self, tensor: Any, x: Any, at: int | None) -> Any:
        """What is of no token, once for each."""
        if isinstance(x, Tokens) or at is None:
            return tensor
        return self.r.emit(relax.op.broadcast_to(tensor, self.shape(shape_of(tensor), at)))

    def _sliced(self, value: Any, x: Any, rank: int) -> Any:
        before = len(shape_of(value))
        axes = [int(a) % before - before + rank for a in value.args[1].fields]
        begin, end, *strides = ([int(v) for v in a.fields] for a in value.args[2:5])
        return self.r.emit(relax.op.strided_slice(x, axes, begin, end, strides[0] if strides else None))

    def operator(self, op: Operator, tensors: Sequence[Any], shape: Shape, dtype: str) -> Any:
        """A call of an operator."""
        types = tuple(TensorType(shape_of(t), str(t.ty.dtype)) for t in tensors)
        out = TensorType(tuple(shape), dtype)
        key = (to_json(op), types, out)
        if key not in self._functions:
            self._functions[key] = self.r.add_function(op.primfunc(types, out), f"hwptq_{op.kind}")
        kind = relax.TensorType(shape, dtype)
        return self.r.emit(relax.call_tir(self._functions[key], list(tensors), kind))


def _over_the_same_axes(value: Any) -> Callable[[list[Any], list[Any]], Any] | None:
    """What makes a node that computes along axes of a tensor of another rank: they are counted from the end.
    None where a node says no axes."""
    rank, name = len(shape_of(value.args[0])), op_name(value)

    def ends(given: Any) -> list[int]:
        return [int(a) % rank - rank for a in ([given] if isinstance(given, int) else given)]

    if name in ("nn.rms_norm", "nn.layer_norm"):
        make = relax.op.nn.rms_norm if name == "nn.rms_norm" else relax.op.nn.layer_norm
        return lambda tensors, rest: make(
            *tensors, *rest, axes=ends(value.attrs.axes), epsilon=value.attrs.epsilon
        )
    if name == "take":
        own = ends(value.attrs.axis)[0]
        return lambda tensors, rest: relax.op.take(
            *tensors, *rest, axis=len(shape_of(tensors[0])) + own, mode=value.attrs.mode
        )
    if name == "nn.softmax":
        return lambda tensors, rest: relax.op.nn.softmax(*tensors, axis=ends(value.attrs.axis)[0])
    if name in REDUCTIONS:
        return lambda tensors, rest: getattr(relax.op, name)(
            *tensors, axis=ends(value.attrs.axis), keepdims=True
        )
    return None


def _places(step: Shape, in_front: bool = True) -> list[int]:
    """Axes where the tokens of a tensor may be: next to its rows, if there is one of a single value."""
    single = [axis for axis in range(-len(step), 0) if step[axis] == 1]
    order = sorted(single, key=lambda axis: (axis == -1 and len(single) > 1 and prod(step) > 1, -axis))
    return [*order, *([-len(step) - 1] if in_front else [])]


def _cost(held: Sequence[Tokens | Any], found: Reading, axis: int) -> int | None:
    """What it takes to have the tokens of all activations where an axis of the result wants them; None where
    that can't be."""
    along = found.along(axis)
    if along is None:
        return None
    total = 0
    for x, at in zip(held, along, strict=True):
        shape = x.shape if isinstance(x, Tokens) else shape_of(x)
        if at is not None and padded(shape, at)[at] != 1:
            return None
        if isinstance(x, Tokens):
            if at is None:
                return None
            alike = prod(padded(shape, at)[:at]) == x.before
            total += 0 if at == x.axis else 1 if alike else _MOVED
    return total
