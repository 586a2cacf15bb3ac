"""What a graph computes as a mean or a maximum over the tokens that a mask shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from hwptq.ir.dataflow import constant, op_name, shape_of
from hwptq.ir.movement import SAME_ORDER

from .mask_traces import Trace, moved, moved_name, trace
from .masks import is_hiding

_SMALL = 1e-3  # what is added to a count is smaller

Values = Mapping[Any, Any]


@dataclass(frozen=True)
class Pooling:
    """The mean or the maximum of x [N, S, C] over the S that `mask`, whose index is [N, S], shows."""

    kind: str
    x: Any
    mask: Trace


def pooling_of(value: Any, values: Values) -> Pooling | None:
    """The pooling that a node is the result of, or None. values: var -> its expression."""
    name = op_name(value)
    if name not in ("divide", "max") or str(value.ty.dtype) != "float32":
        return None
    found = _mean(value, values) if name == "divide" else _maximum(value, values)
    if found is None or found.mask.index.shape != shape_of(found.x)[:2]:
        return None
    return found


def _mean(quotient: Any, values: Values) -> Pooling | None:
    summed = _summed(quotient.args[0], values)
    if summed is None:
        return None
    x, mask = summed
    n, _, channels = shape_of(x)
    if shape_of(quotient) not in ((n, channels), (n, 1, channels)):
        return None
    counted = _counted(quotient.args[1], values)
    if counted is None:
        return None
    rows, index = counted
    each = np.broadcast_to(index, shape_of(quotient)).reshape(n, channels)
    counts = [_of_row(rows, each[i]) for i in range(n)]
    same = all(c is not None and c.tells_the_same(_row(mask, i)) for i, c in enumerate(counts))
    return Pooling("masked_mean", x, mask) if same else None


def _summed(expr: Any, values: Values) -> tuple[Any, Trace] | None:
    """(x, mask [N, S]) of the sum over S of x times its mask, or of x where it is shown and else 0."""
    value: Any = values.get(expr)
    while op_name(value) in SAME_ORDER and shape_of(value)[-1:] == shape_of(value.args[0])[-1:]:
        value = values.get(value.args[0])
    if op_name(value) == "matmul":
        return _summed_by_product(value, values)
    if op_name(value) != "sum" or not _over_tokens(value):
        return None
    masked: Any = values.get(value.args[0])
    found = None
    if op_name(masked) == "multiply":
        found = _with_mask(masked.args[0], masked.args[1], values) or _with_mask(
            masked.args[1], masked.args[0], values
        )
    elif op_name(masked) == "where":
        found = _shown_by(masked, values, lambda number: not np.any(number))
    return found if found is None or shape_of(found[0]) == shape_of(masked) else None


def _summed_by_product(product: Any, values: Values) -> tuple[Any, Trace] | None:
    """The product of a mask [N, 1, S] and x [N, S, C]."""
    mask, x = product.args
    found = trace(mask, values)
    if found is None or not isinstance(x, relax.Var) or len(shape_of(x)) != 3:
        return None
    n, count, _ = shape_of(x)
    if found.index.shape != (n, 1, count):
        return None
    return x, Trace(found.root, found.index.reshape(n, count), found.negated)


def _with_mask(x: Any, mask: Any, values: Values) -> tuple[Any, Trace] | None:
    """(x, [N, S]) of a tensor [N, S, C] and a mask that is broadcast to it and the same for all channels."""
    if not isinstance(x, relax.Var) or len(shape_of(x)) != 3:
        return None
    found = trace(mask, values)
    if found is None:
        return None
    index = np.broadcast_to(found.index, np.broadcast_shapes(found.index.shape, shape_of(x)))
    if index.shape != shape_of(x) or np.any(index != index[..., :1]):
        return None
    return x, Trace(found.root, index[..., 0], found.negated)


def _shown_by(where: Any, values: Values, hides: Callable[[np.ndarray], bool]) -> tuple[Any, Trace] | None:
    """The same of where(shown, x, a number that hides) and where(hidden, the number, x)."""
    condition, first, second = where.args
    for x, other, negated in ((first, second, False), (second, first, True)):
        number = constant(other)
        found = _with_mask(x, condition, values) if number is not None and hides(number) else None
        if found is not None:
            mask = found[1]
            return x, Trace(mask.root, mask.index, mask.negated != negated)
    return None


def _counted(expr: Any, values: Values) -> tuple[Trace, np.ndarray] | None:
    """(mask, its index [rows, S]; the row that each element of `expr` counts)."""
    value: Any = values.get(expr)
    if value is None:
        return None
    name = op_name(value)
    if name == "sum":
        return _count(value, values)
    kept = name == "astype" or _keeps_from_zero(value)
    inner = _counted(value.args[0], values) if kept or moved_name(value) else None
    if inner is None or kept:
        return inner
    index = moved(value, inner[1])
    return None if index is None else (inner[0], index)


def _count(total: Any, values: Values) -> tuple[Trace, np.ndarray] | None:
    """What a sum over the tokens, one axis, counts."""
    found, axes = trace(total.args[0], values), total.attrs.axis
    if found is None or axes is None or len(axes) != 1:
        return None
    axis = int(axes[0]) % found.index.ndim
    last = np.moveaxis(found.index, axis, -1)
    rows = last.reshape(-1, last.shape[-1])
    return Trace(found.root, rows, found.negated), np.arange(len(rows)).reshape(shape_of(total))


def _keeps_from_zero(value: Any) -> bool:
    """Whether a count is kept from 0 by something small, or by 1."""
    name = op_name(value)
    if name == "clip":
        low, high = (float(getattr(a, "value", np.nan)) for a in value.args[1:3])
        return 0 <= low <= 1 and not high < np.prod(shape_of(value.args[0]), initial=2.0**31)
    number = constant(value.args[1]) if name in ("maximum", "add") else None
    if number is None or number.size != 1:
        return False
    return bool(0 <= number.reshape(()) <= (1 if name == "maximum" else _SMALL))


def _of_row(rows: Trace, each: np.ndarray) -> Trace | None:
    """The row that all channels are divided by the count of; None where they differ."""
    first = rows.index[each[0]]
    return Trace(rows.root, first, rows.negated) if np.all(rows.index[each] == first) else None


def _row(mask: Trace, number: int) -> Trace:
    return Trace(mask.root, mask.index[number], mask.negated)


def _maximum(value: Any, values: Values) -> Pooling | None:
    masked: Any = values.get(value.args[0])
    if not _over_tokens(value) or op_name(masked) != "where":
        return None
    found = _shown_by(masked, values, is_hiding)
    return None if found is None else Pooling("masked_max", *found)


def _over_tokens(reduction: Any) -> bool:
    """Whether a reduction of [N, S, C] runs over S."""
    axes, rank = reduction.attrs.axis, len(shape_of(reduction.args[0]))
    return rank == 3 and axes is not None and [int(a) % rank for a in axes] == [1]
