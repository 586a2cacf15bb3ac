"""CumSum as shifted sums, which have code on every target: TVM's own calls a library at run time.

After the step with shift k, each element is the sum of the 2k up to its place: log2(n) additions in all.
Hillis and Steele 1986, "Data parallel algorithms".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.ir.dataflow import constant, shape_of


def running_sum(bb: Any, inputs: Sequence[Any], attrs: Any) -> Any:
    """CumSum along a constant axis, also exclusive or in reverse. Raises ValueError for a computed axis."""
    x, at = inputs[0], constant(inputs[1])
    if at is None or at.size != 1:
        raise ValueError("the axis of CumSum must be a constant number")
    axis = int(at.reshape(())) % len(shape_of(x))
    reverse, size = bool(attrs.get("reverse", 0)), shape_of(x)[axis]
    total = bb.emit(_shifted(bb, x, axis, 1, reverse)) if attrs.get("exclusive", 0) else x
    shift = 1
    while shift < size:
        total = bb.emit(relax.op.add(total, bb.emit(_shifted(bb, total, axis, shift, reverse))))
        shift *= 2
    return total


def _shifted(bb: Any, x: tvm.ir.Expr, axis: int, by: int, reverse: bool) -> Any:
    """Elements `by` places further along an axis, behind zeros; in reverse, to its start."""
    shape = list(shape_of(x))
    by = min(by, shape[axis])
    begin, end = (by, shape[axis]) if reverse else (0, shape[axis] - by)
    shape[axis] = by
    zeros = relax.const(np.zeros(shape), str(x.ty.dtype))
    if begin == end:
        return zeros
    kept = bb.emit(relax.op.strided_slice(x, [axis], [begin], [end]))
    return relax.op.concat([kept, zeros] if reverse else [zeros, kept], axis)
