"""Scan along axes of known size, as its turns: each reads one place of what is scanned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hwptq.errors import UnsupportedError

from .surroundings import Surroundings, attribute
from .turns import Stack, Turns, check_count


def turns_of_scan(
    node: onnx.NodeProto,
    prefix: str,
    around: Surroundings,
    graph: onnx.GraphProto,
    nodes: list[onnx.NodeProto],
) -> Turns | None:
    """The turns of a Scan, None where a size is not known; what they read goes to `graph` and `nodes`.

    Raises UnsupportedError where what is scanned has several sizes.
    """
    body, count = attribute(node, "body"), int(attribute(node, "num_scan_inputs"))
    carried, scanned = node.input[: len(node.input) - count], node.input[len(node.input) - count :]
    axes = _each(node, "scan_input_axes", count)
    backwards = _each(node, "scan_input_directions", count)
    shapes = [around.shape(name) for name in scanned]
    if any(shape is None for shape in shapes):
        return None
    sizes = {shape[axis] for shape, axis in zip(shapes, axes, strict=True) if shape is not None}
    if len(sizes) != 1:
        raise UnsupportedError(
            f"node {node.name!r} ({node.op_type}): what it scans has the sizes {sorted(sizes)}; give one size"
        )
    turns = sizes.pop()
    check_count(node, turns)
    numbers = [f"{prefix}{place}" for place in range(turns)]
    graph.initializer.extend(numpy_helper.from_array(np.array(i, np.int64), n) for i, n in enumerate(numbers))
    rows: list[list[str]] = []
    for i, name in enumerate(scanned):
        places = numbers[::-1] if backwards[i] else numbers
        rows.append([f"{prefix}row.{i}.{turn}" for turn in range(turns)])
        for turn, (place, row) in enumerate(zip(places, rows[-1], strict=True)):
            at = f"{node.name}.row.{i}.{turn}"
            nodes.append(helper.make_node("Gather", [name, place], [row], name=at, axis=axes[i]))

    def arguments(turn: int, states: Sequence[str]) -> Sequence[str]:
        return [*states, *(row[turn] for row in rows)]

    results = len(body.output) - len(carried)
    ends = zip(
        _each(node, "scan_output_axes", results), _each(node, "scan_output_directions", results), strict=True
    )
    stacks = [Stack(axis, bool(backwards)) for axis, backwards in ends]
    return Turns(node, prefix, turns, carried, 0, stacks, arguments)


def _each(node: onnx.NodeProto, name: str, count: int) -> list[int]:
    """A number for each of `count` tensors; 0 where the node gives none."""
    return list(attribute(node, name, [])) or [0] * count
