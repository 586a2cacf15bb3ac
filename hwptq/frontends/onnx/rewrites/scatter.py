"""ScatterND and ScatterElements: at known places one Gather, of a number where a mask is set Where."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx

from hwptq.errors import UnsupportedError

from .surroundings import Surroundings, attribute, part_of


def scatter(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """out[i] = (data, updates)[source[i]], both as vectors; of several updates of a place the last holds.
    Of one number where a mask is set: where(mask, number, data).

    Raises UnsupportedError for places that are computed, and for reductions.
    """
    data, places, updates = node.input
    reduces = attribute(node, "reduction", "none") != "none"
    filled = None if reduces else _filled(around, node)
    if filled is not None:
        return filled
    shape, indices, size = around.shape(data), around.constant(places), around.shape(updates)
    if shape is None or size is None or indices is None or reduces:
        raise UnsupportedError(
            f"node {node.name!r}: {node.op_type} has code only for indices that are constants, or one row's, "
            f"without a reduction; write it with Where or Concat"
        )
    source = np.arange(prod(shape)).reshape(shape)
    new = prod(shape) + np.arange(prod(size)).reshape(size)
    if node.op_type == "ScatterND":
        for place in np.ndindex(*indices.shape[:-1]):
            source[tuple(indices[place])] = new[place]
    else:
        axis = int(attribute(node, "axis", 0))
        for place in np.ndindex(*indices.shape):
            target = list(place)
            target[axis] = int(indices[place])
            source[tuple(target)] = new[place]
    flat = around.add(np.array([-1]), f"{node.name}_flat")
    parts = [around.fresh(f"{name}_vector") for name in (data, updates)]
    both, taken = around.fresh(f"{node.name}_both"), around.fresh(f"{node.name}_taken")
    return [
        part_of(node, "Reshape", [data, flat], parts[0]),
        part_of(node, "Reshape", [updates, flat], parts[1]),
        part_of(node, "Concat", parts, both, axis=0),
        part_of(node, "Gather", [both, around.add(source.ravel(), f"{node.name}_source")], taken),
        part_of(node, "Reshape", [taken, around.add(np.array(shape), f"{node.name}_shape")], node.output[0]),
    ]


def _filled(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """x[mask] = number: ScatterND(x, the places that NonZero finds, the number as often)."""
    data, places, updates = node.input
    turned, number = around.maker(places), _repeated(around, updates)
    found = around.maker(turned.input[0]) if turned is not None and turned.op_type == "Transpose" else None
    if node.op_type != "ScatterND" or found is None or found.op_type != "NonZero" or number is None:
        return None
    (mask,) = found.input
    if around.shape(mask) != around.shape(data):
        return None
    value = around.add(number, f"{node.name}_number")
    return [part_of(node, "Where", [mask, value, data], node.output[0])]


def _repeated(around: Surroundings, name: str) -> np.ndarray | None:
    """The number that a tensor repeats, as a scalar; None where it is anything else."""
    value, maker = around.constant(name), around.maker(name)
    if value is not None:
        return value.reshape(-1)[:1].reshape(()) if value.size and np.ptp(value) == 0 else None
    if maker is None or maker.op_type not in ("Expand", "Reshape"):
        return None
    return _repeated(around, maker.input[0])
