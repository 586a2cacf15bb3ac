"""Means and sums of a tensor over one of its axes, whatever steps an export wrote them in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tvm import relax

from hwptq.ir.dataflow import constant, op_name, shape_of
from hwptq.ir.movement import SAME_ORDER

Values = Mapping[Any, Any]

#: What repeats a tensor or adds and removes axes of one element.
MOVES = (*SAME_ORDER, "broadcast_to")


@dataclass(frozen=True)
class Reduced:
    """factor * sum(x over axis)."""

    x: Any
    axis: int
    factor: float

    @property
    def count(self) -> int:
        """The elements that are summed."""
        return int(shape_of(self.x)[self.axis])

    @property
    def is_mean(self) -> bool:
        """Whether the factor is that of a mean, but for rounding."""
        return abs(self.factor * self.count - 1) < 1e-6


def reduced(expr: Any, values: Values, beside: bool = True) -> Reduced | None:
    """What `expr` is a sum of, over one axis. beside: only where it can stand beside that, its axis having
    one element or repeating it; else the axis may have vanished.
    """
    found = _reduced(expr, values)
    if found is None or not beside:
        return found
    whole = tuple(shape_of(found.x))
    kept = (*whole[: found.axis], 1, *whole[found.axis + 1 :])
    return found if tuple(shape_of(expr)) in (whole, kept) else None


def _reduced(expr: Any, values: Values) -> Reduced | None:
    value: Any = values.get(expr)
    name = op_name(value)
    if name in ("mean", "sum"):
        return _of_reduction(value, name)
    if name in MOVES:
        found = _reduced(value.args[0], values)
        return found if found is not None and _only_repeats(expr, found) else None
    if name in ("multiply", "divide"):
        for part, other in (tuple(value.args), tuple(value.args[::-1]))[: 2 if name == "multiply" else 1]:
            c, found = number(other), _reduced(part, values)
            if c and found is not None:
                return replace(found, factor=found.factor * (c if name == "multiply" else 1 / c))
    return None


def _of_reduction(value: Any, name: str) -> Reduced | None:
    x, axes = value.args[0], value.attrs.axis
    if axes is None or len(axes) != 1 or not isinstance(x, relax.Var):
        return None
    found = Reduced(x, int(axes[0]) % len(shape_of(x)), 1.0)
    return replace(found, factor=1 / found.count) if name == "mean" else found


def _only_repeats(var: Any, found: Reduced) -> bool:
    """Whether a tensor holds a reduction's values in their order, perhaps repeated along its axis."""
    whole = list(shape_of(found.x))
    rest = whole[: found.axis] + whole[found.axis + 1 :]
    held = [n for n in shape_of(var) if n != 1]
    return held in ([n for n in whole if n != 1], [n for n in rest if n != 1])


def number(expr: Any) -> Any:
    """The value of a constant of one element, or of a number in a call; None for anything else."""
    array = constant(expr)
    if array is not None:
        return float(array.reshape(())) if array.size == 1 else None
    return float(expr.value) if hasattr(expr, "value") and not isinstance(expr, relax.Var) else None
