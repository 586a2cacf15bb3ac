"""TopK as an order of places, and what lies there: TVM's own calls a library at run time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from hwptq.ir.dataflow import constant, shape_of
from hwptq.operators.real_order import RealOrder
from hwptq.tir.kernel import TensorType

#: Dtypes that are ordered as they are; narrower integers are ordered as int32.
_ORDERED = ("float32", "int32", "int64")
_NARROW = ("bool", "int8", "uint8", "int16", "uint16")


def top_k(bb: Any, inputs: Sequence[Any], attrs: Any) -> Any:
    """The Tuple (values, places). Raises ValueError for a computed k, or one that is larger than the axis."""
    x, shape = inputs[0], shape_of(inputs[0])
    k = constant(inputs[1]) if len(inputs) > 1 else attrs.get("k")  # an input since opset 10
    if k is None:
        raise ValueError("its k is computed, and code has fixed sizes")
    count, axis = int(np.ravel(k)[0]), int(attrs.get("axis", -1)) % len(shape)
    if not 0 < count <= shape[axis]:
        raise ValueError(f"{count} of {shape[axis]} values are none that code can find")
    dtype = str(x.ty.dtype)
    if dtype not in _ORDERED + _NARROW:
        raise ValueError(f"values of {dtype} have no order here")
    ordered = x if dtype in _ORDERED else bb.emit(relax.op.astype(x, "int32"))
    places = _places(bb, ordered, axis, count, RealOrder(bool(attrs.get("largest", 1))))
    return relax.Tuple([bb.emit(relax.op.gather_elements(x, places, axis)), places])


def _places(bb: Any, x: Any, axis: int, count: int, order: RealOrder) -> Any:
    """int64, as x but `count` long along `axis`."""
    shape = shape_of(x)
    last = [a for a in range(len(shape)) if a != axis] + [axis]
    moved = last != sorted(last)
    if moved:
        x = bb.emit(relax.op.permute_dims(x, last))
    out = (*(shape[a] for a in last[:-1]), count)
    function = order.primfunc([TensorType(shape_of(x), str(x.ty.dtype))], TensorType(out, "int64"))
    gv = bb.add_func(function, "hwptq_real_order")
    places = bb.emit(relax.call_tir(gv, [x], relax.TensorType(out, "int64")))
    return bb.emit(relax.op.permute_dims(places, np.argsort(last).tolist())) if moved else places
