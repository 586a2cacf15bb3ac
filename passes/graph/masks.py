"""Which tensors are masks: of two values, told apart by a boolean tensor that is computed without floats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from hwptq.ir.dataflow import Constant, constant, op_name, shape_of
from hwptq.ir.movement import MOVEMENTS
from hwptq.ir.views import view

#: What is added to hide a value: e^-64 of anything is nothing.
HIDING = -64.0
_NOTHING = 1e-6
_NUMBERS: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide,
    "minimum": np.minimum, "maximum": np.maximum,
}  # fmt: skip


@dataclass(frozen=True)
class Two:
    """A tensor that is `on` where `is_on`, a boolean expression of the new function, is set, else `off`."""

    is_on: Any
    on: float
    off: float


def is_hiding(number: np.ndarray) -> bool:
    """Whether all of a constant hides what stands in its place or it is added to."""
    return bool(np.all(number <= HIDING))


def sides(value: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Both orders of the operands of a call."""
    a, b = value.args[:2]
    return (a, b), (b, a)


class Masks:
    """The masks of a function that is rewritten. values: var -> its expression, of the old function."""

    def __init__(self, rewriter: Any, values: Mapping[Any, Any]):
        self.r, self.values = rewriter, values
        self._hidden: dict[Any, Any] = {}

    def hidden_by(self, expr: Any) -> Any:
        """The boolean expression that says what a summand hides; None where it is no mask."""
        if expr not in self._hidden:
            self._hidden[expr] = self._hidden_by(expr)
        return self._hidden[expr]

    def bias_and_mask(self, expr: Any) -> tuple[Any, list[Any]] | None:
        """A constant that hides some values and adds something to others: (what it adds, [what it hides])."""
        array = constant(expr)
        if array is None or array.dtype.kind != "f":
            return None
        hides = array <= HIDING
        if not hides.any() or array[~hides].min(initial=0) < HIDING / 2:
            return None
        return relax.const(np.where(hides, 0, array).astype(array.dtype)), [relax.const(hides)]

    def condition(self, expr: Any) -> Any:
        """A boolean tensor of the old function, in the new one."""
        return self.r.get(expr)

    def negated(self, condition: Any) -> Any:
        """What is not so."""
        known = constant(condition)
        return (
            self.r.emit(relax.op.logical_not(condition))
            if known is None
            else relax.const(np.logical_not(known))
        )

    def any_of(self, conditions: list[Any]) -> Any:
        """Where any of the conditions holds; None where there are none."""
        if not conditions:
            return None
        found, *others = conditions
        for other in others:
            first, second = constant(found), constant(other)
            if first is not None and second is not None:
                found = relax.const(np.logical_or(first, second))
            else:
                found = self.r.emit(relax.op.logical_or(found, other))
        return found

    def _hidden_by(self, expr: Any) -> Any:
        value: Any = self.values.get(expr)
        if op_name(value) in ("add", "minimum"):
            both = [self.hidden_by(a) for a in value.args]
            if all(h is not None for h in both):
                return self.any_of(both)
        two = self._two(expr)
        if two is None:
            return None
        if two.on <= HIDING and abs(two.off) <= _NOTHING:
            return two.is_on
        if two.off <= HIDING and abs(two.on) <= _NOTHING:
            return self.negated(two.is_on)
        return None

    def _two(self, expr: Any) -> Two | None:
        """The two values of a tensor; None where it has others."""
        if isinstance(expr, Constant):
            return _of_constant(view(expr.value))
        if not isinstance(expr, relax.Var):
            return None
        dtype = str(expr.ty.dtype)
        if dtype == "bool":
            return Two(self.r.get(expr), 1.0, 0.0)
        value: Any = self.values.get(expr)
        found = self._computed(value)
        if found is None and dtype.startswith("int"):
            is_on = relax.op.not_equal(self.r.get(expr), relax.const(0, dtype))
            return Two(self.r.emit(is_on), 1.0, 0.0)
        return found

    def _computed(self, value: Any) -> Two | None:
        name = op_name(value)
        if name == "where":
            return self._where(value)
        if name in (*MOVEMENTS, "astype", "negative"):
            inner = self._two(value.args[0])
            return None if inner is None else self._unary(name, value, inner)
        return self._with_number(name, value) if name in _NUMBERS else None

    def _unary(self, name: str, value: Any, inner: Two) -> Two:
        if name == "negative":
            return Two(inner.is_on, -inner.on, -inner.off)
        if name == "astype":
            on, off = (float(np.asarray(v).astype(str(value.attrs.dtype))) for v in (inner.on, inner.off))
            return Two(inner.is_on, on, off)
        moved = relax.Call(value.op, [inner.is_on, *value.args[1:]], value.attrs, value.ty_args)
        return Two(self.r.emit(moved), inner.on, inner.off)

    def _where(self, value: Any) -> Two | None:
        on, off = (_number(a) for a in value.args[1:])
        if on is None or off is None:
            return None
        return Two(self._wide(self.r.get(value.args[0]), shape_of(value)), on, off)

    def _with_number(self, name: str, value: Any) -> Two | None:
        numbers = [_number(a) for a in value.args]
        at = next((i for i, n in enumerate(numbers) if n is not None), None)
        if at is None:
            return None
        inner, scalar = self._two(value.args[1 - at]), numbers[at]
        if inner is None or scalar is None:
            return None
        with np.errstate(all="ignore"):
            on, off = (
                float(_NUMBERS[name](*((v, scalar) if at else (scalar, v)))) for v in (inner.on, inner.off)
            )
        return Two(self._wide(inner.is_on, shape_of(value)), on, off)

    def _wide(self, is_on: Any, shape: tuple[int, ...]) -> Any:
        """A condition of the shape of what it tells apart: a constant beside it may have more axes."""
        if shape_of(is_on) == shape:
            return is_on
        return self.r.emit(relax.op.broadcast_to(is_on, shape))


def _number(expr: Any) -> float | None:
    """The value of a constant that has one, however often; exports fill a tensor of zeros first."""
    array = constant(expr)
    if array is None or array.size == 0 or np.any(array != array.flat[0]):
        return None
    return float(array.flat[0])


def _of_constant(array: np.ndarray) -> Two | None:
    """A constant that hides some values and leaves the others; what hides may differ."""
    if array.dtype.kind not in "fib" or array.size == 0:
        return None
    hides = array <= HIDING
    rest = array[~hides]
    if not hides.any() or (rest.size and np.abs(rest).max() > _NOTHING):
        return None
    return Two(relax.const(hides), float(array[hides].max()), 0.0)
