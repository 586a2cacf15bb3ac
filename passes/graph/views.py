"""How a tensor lies in the one that it was moved from, where that has changed no code and copied none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tvm import relax

from hwptq.ir.dataflow import op_name, shape_of, slice_bounds
from hwptq.ir.movement import REARRANGED, order_of_axes
from hwptq.kernels.joins import View
from hwptq.tir.kernel import TensorType
from hwptq.tir.loops import row_major

_BYTE = np.zeros(1, np.int8)


def view_of(var: Any, values: Mapping[Any, Any]) -> tuple[Any, View]:
    """(the tensor that is stored, how `var` lies in it); `var` itself where nothing moved it."""
    root, array = _traced(var, values)
    stored = TensorType(shape_of(root), str(root.ty.dtype))
    return root, View(stored, array.shape, array.strides, _address(array))


def _traced(var: Any, values: Mapping[Any, Any]) -> tuple[Any, np.ndarray]:
    """The stored tensor, and an array of bytes, never read, whose strides are those of `var`."""
    value: Any = values.get(var)
    found: tuple[Any, np.ndarray] | None = None
    if isinstance(value, relax.TupleGetItem) and op_name(values.get(value.tuple_value)) == "split":
        split = values[value.tuple_value]
        found = _part(split, value.index, *_traced(split.args[0], values))
    elif isinstance(value, relax.Var):
        found = _traced(value, values)
    elif op_name(value) in (*REARRANGED, "strided_slice"):
        found = _moved(value, *_traced(value.args[0], values))
    return found or (var, _whole(shape_of(var)))


def _moved(value: Any, root: Any, array: np.ndarray) -> tuple[Any, np.ndarray] | None:
    name = op_name(value)
    if name == "permute_dims":
        return root, array.transpose(order_of_axes(value))
    if name == "strided_slice":
        try:
            bounds = zip(*slice_bounds(value), strict=True)
        except (AttributeError, TypeError, ValueError):
            return None
        index = [slice(None)] * array.ndim
        for axis, begin, end, step in bounds:
            if step < 1:
                return None
            index[axis] = slice(begin, end, step)
        return root, array[tuple(index)]
    shape = shape_of(value)
    strides = _reshaped(array.shape, array.strides, shape)
    return None if strides is None else (root, np.lib.stride_tricks.as_strided(array, shape, strides))


def _reshaped(
    shape: tuple[int, ...], strides: tuple[int, ...], wanted: tuple[int, ...]
) -> tuple[int, ...] | None:
    """The strides of an array in another shape; None where it has to be copied."""
    old = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    found: list[int] = []
    for n in reversed(wanted):  # axes that are cut off the last old one, which is joined with those before it
        if n == 1:
            found.append(0)
            continue
        while old and old[-1][0] % n and len(old) > 1 and old[-2][1] == old[-1][0] * old[-1][1]:
            old[-2:] = [(old[-2][0] * old[-1][0], old[-1][1])]
        if not old or old[-1][0] % n:
            return None
        (extent, stride) = old.pop()
        found.append(stride)
        if extent > n:
            old.append((extent // n, stride * n))
    return tuple(reversed(found))


def _part(split: Any, number: int, root: Any, array: np.ndarray) -> tuple[Any, np.ndarray]:
    sections = split.attrs.indices_or_sections
    cuts = (
        int(sections)
        if isinstance(sections, int) or hasattr(sections, "value")
        else [int(i) for i in sections]
    )
    return root, np.split(array, cuts, int(split.attrs.axis))[number]


def _whole(shape: tuple[int, ...]) -> np.ndarray:
    """An array of bytes as large as a tensor, all of it in one byte of memory and behind."""
    return np.lib.stride_tricks.as_strided(_BYTE, shape, row_major(shape))


def _address(array: np.ndarray) -> int:
    """The number of its first element."""
    return int(array.__array_interface__["data"][0]) - int(_BYTE.__array_interface__["data"][0])
