"""ScatterND and ScatterElements of one row at a computed place, as a Where: so a cache is written."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx

from .surroundings import Surroundings, attribute, part_of


def scatter_row(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """where(places == index, updates, data) of updates that are one row along an axis; None for others.

    As ONNX has it, an index below 0 counts from the end.
    """
    data, places, updates = node.input
    shape, told, given = around.shape(data), around.shape(places), around.shape(updates)
    known = around.constant(places) is not None or attribute(node, "reduction", "none") != "none"
    if shape is None or told is None or given is None or known:
        return None
    by_element = node.op_type == "ScatterElements"
    axis = int(attribute(node, "axis", 0)) % len(shape) if by_element else 0
    one = tuple(1 if i == axis else n for i, n in enumerate(shape))
    fits = given == told == one if by_element else prod(told) == 1 and prod(given) == prod(one)
    if not fits:
        return None
    places = _repeated(around, places)
    like = (1,) * len(shape) if prod(around.shape(places) or ()) == 1 else one
    parts = ("index", "below", "wrapped", "place", "here", "row")
    index, below, wrapped, place, here, row = (around.fresh(f"{node.name}_{part}") for part in parts)
    size = around.add(np.array(shape[axis]), f"{node.name}_size")
    rows = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return [
        part_of(node, "Reshape", [places, around.add(np.array(like), f"{node.name}_like")], index),
        part_of(node, "Less", [index, around.add(np.array(0), f"{node.name}_zero")], below),
        part_of(node, "Add", [index, size], wrapped),
        part_of(node, "Where", [below, wrapped, index], place),
        part_of(node, "Equal", [around.add(rows, f"{node.name}_rows"), place], here),
        part_of(node, "Reshape", [updates, around.add(np.array(one), f"{node.name}_one")], row),
        part_of(node, "Where", [here, row, data], node.output[0]),
    ]


def _repeated(around: Surroundings, name: str) -> str:
    """The tensor of one value that `name` repeats, else `name` itself."""
    source = name
    while prod(around.shape(source) or (0,)) != 1:
        maker = around.maker(source)
        if maker is None or maker.op_type not in ("Expand", "Reshape"):
            return name
        source = maker.input[0]
    return source
