"""Limits on what a small file may stand for, asked before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, prod
from typing import Any

import numpy as np
import onnx

from hwptq.errors import UnsupportedError

from .read_file import node_name

#: Elements of a tensor: 1 GiB in float32.
MOST_ELEMENTS = 2**28
_WINDOWS = ("Conv", "ConvTranspose", "AveragePool", "MaxPool", "LpPool")

Shapes = Mapping[str, tuple[int, ...]]


def check_shapes(graph: onnx.GraphProto, shapes: Shapes) -> None:
    """Raise UnsupportedError at the first node with a result that is too large, at the first window over or
    with a result of no elements, and for an output of the graph that has none."""
    for node in graph.node:
        found = [shapes[name] for name in node.output if name in shapes]
        for shape in found:
            _check_size(node, prod(shape))
        if node.op_type in _WINDOWS:
            _check_window(node, shapes.get(node.input[0], ()), found[0] if found else ())
    for value in graph.output:
        shape = shapes.get(value.name, ())
        if _is_empty(shape):
            raise UnsupportedError(
                f"output {value.name!r} has no elements ({list(shape)}); take it out of the model"
            )


def _check_window(node: onnx.NodeProto, image: Sequence[int], result: Sequence[int]) -> None:
    if _is_empty(image):
        raise UnsupportedError(
            f"{node_name(node)}: its image has no elements ({list(image)}); leave out what reads it"
        )
    if _is_empty(result):
        why = "its window is larger than its image" if min(result[2:]) <= 0 else "it has no output channels"
        raise UnsupportedError(
            f"{node_name(node)}: {why}, so that the result has no elements ({list(result)}); give larger "
            f"images (--axis), or leave it out"
        )


def _is_empty(shape: Sequence[int]) -> bool:
    return min(shape, default=1) <= 0


def check_result(node: onnx.NodeProto, inputs: Sequence[np.ndarray]) -> None:
    """Raise UnsupportedError where a node of constants would give a tensor that is too large."""
    if node.op_type in _SIZES:
        try:
            elements = _SIZES[node.op_type](*inputs)
        except (ValueError, TypeError, IndexError, OverflowError, ZeroDivisionError):
            return  # not as ONNX has it: evaluating it says so
        _check_size(node, elements)


def _check_size(node: onnx.NodeProto, elements: float) -> None:
    if elements > MOST_ELEMENTS:
        raise UnsupportedError(
            f"{node_name(node)}: its result has {elements:.3g} elements, at most {MOST_ELEMENTS:.3g} are "
            f"possible; give smaller inputs (--axis), or smaller sizes in the model"
        )


def _numbers(array: np.ndarray) -> list[float]:
    return [float(number) for number in np.ravel(array)]


def _range(start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> float:
    return ceil((float(limit) - float(start)) / float(delta))


def _expand(x: np.ndarray, shape: np.ndarray) -> float:
    rank = max(x.ndim, shape.size)
    mine, wanted = ([1.0] * (rank - len(dims)) + [*map(float, dims)] for dims in (x.shape, _numbers(shape)))
    return prod(map(max, mine, wanted))


def _pad(x: np.ndarray, pads: np.ndarray, *others: np.ndarray) -> float:
    before, after = np.split(np.asarray(_numbers(pads)), 2)
    return prod((np.asarray(x.shape, float) + before + after).tolist())


def _resize(x: np.ndarray, *others: np.ndarray) -> float:
    """The last input gives the sizes, or the scales."""
    last = prod(_numbers(others[-1]))
    return last if others[-1].dtype.kind == "i" else x.size * last


#: Elements of the results of operators that make large tensors of small ones.
_SIZES: dict[str, Callable[..., Any]] = {
    "ConstantOfShape": lambda shape: prod(_numbers(shape)),
    "Expand": _expand,
    "OneHot": lambda indices, depth, values: indices.size * float(np.ravel(depth)[0]),
    "Pad": _pad,
    "Range": _range,
    "Resize": _resize,
    "Tile": lambda x, repeats: x.size * prod(_numbers(repeats)),
    "Upsample": _resize,
}
