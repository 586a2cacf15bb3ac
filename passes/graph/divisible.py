"""Tensors whose channels can be divided where the dense layers that read them multiply their rows instead.

A norm's result and the output of a dense layer can: their own constants take the divisors. What stands
between only moves channels, or is linear in them: a product with another tensor (up and down of a gated
block), a matmul that weighs the rows (values and output of an attention). The result of a function by table,
a GELU say, has no constants of its own: a product with some can be put behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.ir.composite import Composite, is_clamped, read_composite
from hwptq.ir.dataflow import bindings, constant, op_name, shape_of, users
from hwptq.lowering.elementwise import elementwise_roots, is_elementwise

from .channel_links import Follower, Reader, Unlinked, channel_labels, layers

#: (constants of a call by their place) of operators whose result is linear in them, channel by channel.
_LINEAR = {"nn.layer_norm": (1, 2), "nn.rms_norm": (1,)}


@dataclass(frozen=True)
class Divisible:
    """A tensor, the places of the constants that divide it in its expression, and the dense layers behind.

    alone: nothing else reads it; else a divided copy is to stand beside it. Without constants a product with
    some is to follow it, which divides a copy for less than a second norm does.
    """

    var: Any
    constants: tuple[int, ...]
    readers: tuple[Reader, ...]
    alone: bool


def divisible(mod: tvm.IRModule, func: Any) -> list[Divisible]:
    """Those of a function, in its order."""
    found = layers(mod, func)
    dense = {var for var, unit in found.items() if _is_dense(unit)}
    follower = Follower(mod, func, found, _linear_join(mod))
    points = []
    for var, value in bindings(func):
        places = _constants(value, found.get(var) if var in dense else None)
        if not places:
            continue
        point = _followed(var, places, follower, dense) or _direct(var, places, users(func), found, dense)
        if point is not None:
            points.append(point)
    return points


def multipliable(mod: tvm.IRModule, func: Any, points: Sequence[Divisible]) -> list[Divisible]:
    """The results of functions by table that dense layers alone read, but those of `points`."""
    found = layers(mod, func)
    dense = {var for var, unit in found.items() if _is_dense(unit)}
    taken = {reader.var for point in points for reader in point.readers}
    follower = Follower(mod, func, found)
    values = dict(bindings(func))
    roots = elementwise_roots(values)
    ends = [
        v for v, value in values.items() if roots[v] != v and is_elementwise(value) and len(shape_of(v)) > 1
    ]
    followed = [_followed(var, (), follower, dense) for var in ends]
    return [p for p in followed if p and taken.isdisjoint(reader.var for reader in p.readers)]


def side_by_side(mod: tvm.IRModule, func: Any) -> list[Divisible]:
    """Concatenations, and inputs of the function, that dense layers alone read: what stands side by side
    there may be of any size."""
    found = layers(mod, func)
    dense = {var for var, unit in found.items() if _is_dense(unit)}
    follower = Follower(mod, func, found)
    joined = [var for var, value in bindings(func) if op_name(value) == "concat"]
    starts = [v for v in (*joined, *func.params) if str(v.ty.dtype) == "float32" and shape_of(v)]
    points: list[Divisible] = []
    for var in starts:
        point = _followed(var, (), follower, dense)
        taken = {reader.var for p in points for reader in p.readers}
        if point is not None and taken.isdisjoint(reader.var for reader in point.readers):
            points.append(point)
    return points


def multiplied(point: Divisible) -> Divisible:
    """A tensor whose divided copy, where it has one, is a product with constants."""
    return point if point.alone else replace(point, constants=())


def _constants(value: Any, unit: Composite | None) -> tuple[int, ...]:
    """Where in a call the constants stand that divide its result; none where it can't be divided."""
    if unit is not None:
        ends = not is_clamped(unit) or (
            np.all(np.asarray(unit.bounds[0]) == 0) and np.all(np.isinf(unit.bounds[1]))
        )
        whole = unit.bias is None or unit.bias.size == constant(unit.args[1]).shape[-1]  # type: ignore[union-attr]
        return tuple(range(1, len(value.args))) if ends and whole and len(value.args) <= 3 else ()
    name = op_name(value)
    if name in _LINEAR:
        rank = len(shape_of(value))
        last = [int(a) % rank for a in value.attrs.axes] == [rank - 1]
        held = all(constant(value.args[i]) is not None for i in _LINEAR[name])
        return _LINEAR[name] if last and held else ()
    if name == "multiply" and (shape := shape_of(value)):
        channels = shape[-1]
        vectors = [i for i, a in enumerate(value.args) if _is_vector(constant(a), channels)]
        return tuple(vectors) if len(vectors) == 1 else ()
    return ()


def _is_vector(array: np.ndarray | None, channels: int) -> bool:
    """Whether an operand has one value for each channel of the last axis, more than one."""
    return array is not None and array.size == channels > 1 and array.shape[-1] == channels


def _followed(var: Any, places: tuple[int, ...], follower: Follower, dense: set[Any]) -> Divisible | None:
    """All that reads it, if that is dense layers alone."""
    try:
        readers = follower.readers(var, channel_labels(shape_of(var), -1))
    except Unlinked:
        return None
    if not all(reader.var in dense for reader in readers):
        return None
    return Divisible(var, places, tuple(readers), alone=True)


def _direct(
    var: Any, places: tuple[int, ...], readers: Any, found: dict[Any, Composite], dense: set[Any]
) -> Divisible | None:  # fmt: skip
    """The dense layers that read the result of a norm itself, which others read too."""
    if var in found:
        return None  # a copy would be a second layer
    channels = np.arange(shape_of(var)[-1])
    direct = [u for u in readers.get(var, ()) if u in dense and found[u].args[0] == var]
    return (
        Divisible(var, places, tuple(Reader(u, channels, False) for u in direct), alone=False)
        if direct
        else None
    )


def _is_dense(unit: Composite) -> bool:
    weight = constant(unit.args[1])
    return unit.kind == "matmul" and weight is not None and weight.ndim == 2


def _linear_join(mod: tvm.IRModule) -> Callable[[Any, Any, np.ndarray], np.ndarray | None]:
    """What Follower asks of operators of several tensors: their labels where they are linear in `source`."""

    def join(value: Any, source: Any, labels: np.ndarray) -> np.ndarray | None:
        if not isinstance(value, relax.Call):
            return None  # it leaves the graph beside others
        shape = shape_of(value)
        if op_name(value) == "multiply" and list(value.args).count(source) == 1:
            return np.broadcast_to(labels, shape)
        unit = read_composite(mod, value)
        if unit is None or unit.kind != "matmul" or unit.bias is not None or is_clamped(unit):
            return None
        if unit.args[1] != source or unit.args[0] == source or np.any(labels != labels[..., :1, :]):
            return None
        return np.broadcast_to(labels[..., :1, :], shape)

    return join
