"""Indices stay inside of what they index: constant ones are checked, those of the data are clamped.

TVM's importer leaves both unchecked, and an index beyond the end would read, or write, another's memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.ir.dataflow import constant, op_name, rewrite, shape_of
from hwptq.ir.provenance import with_origin


def with_bounded_indices(mod: tvm.IRModule) -> tvm.IRModule:
    """The module, its `take` clamped to the axis. Raises ValueError that names the node of a constant index
    beyond it.
    """

    def visit(r: Any, var: Any, value: Any) -> Any:
        kept, extents = r.keep(value), _extents(value)
        indices = constant(value.args[1]) if extents else None
        if indices is not None and np.any((indices < 0) | (indices >= extents)):  # the importer counts from 0
            sizes = " x ".join(map(str, extents))
            raise ValueError(f"node {r.origins[var].node!r}: an index lies beyond the {sizes} that there are")
        bounded = clamped(kept)
        return kept if bounded is kept else with_origin(bounded, r.origins[var])

    return rewrite(mod, visit)


def clamped(value: Any) -> Any:
    """`take`, with indices clamped to the axis; what else `value` may be, as it is."""
    if not isinstance(value, relax.Call) or op_name(value) != "take" or value.attrs.mode != "fast":
        return value
    return relax.op.take(*value.args, axis=value.attrs.axis, mode="clip")


def _extents(value: Any) -> list[int]:
    """How many there are of what the last axis of the indices counts, one number for each of its places or
    one for all; [] where nothing is indexed, or it isn't known.
    """
    name = op_name(value)
    if name not in ("take", "gather_elements", "gather_nd"):
        return []
    shape = shape_of(value.args[0])
    if name == "gather_nd":
        first = int(value.attrs.batch_dims)
        return list(shape[first : first + shape_of(value.args[1])[-1]])
    axis = value.attrs.axis
    return [int(np.prod(shape)) if axis is None else shape[int(axis)]]
