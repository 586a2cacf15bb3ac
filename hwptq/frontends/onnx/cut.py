"""Where to cut a model in front of what has no code: the fewest tensors behind its layers with weights.

Worked example: a detector's heads join into scores [1, N, C] and boxes [1, N, 4], each of which becomes a
slice for each of C classes, and each slice is read by a NonZero: the cut is the two tensors that were joined.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import onnx

from hwptq.errors import UnsupportedError

from .fold_shapes import fold_shapes, static_shapes
from .without_code import has_code

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN")
#: What a branch does, and which values are the largest, belongs to the program behind the cut.
_CHOOSING = ("If", "Loop", "Scan", "TopK")
_MOST = 16  # tensors of a cut that a user is told of
_SOURCE, _SINK = range(2)  # layers, and what has no code


@dataclass(frozen=True)
class _Side:
    """What makes a tensor, or what reads it."""

    tensor: str
    after: bool


@dataclass(frozen=True)
class Whole:
    """A model as its file has it, before anything is rewritten: what a cut can name."""

    path: str
    inputs: tuple[str, ...]  # without weights
    tensors: frozenset[str]


def whole(model: onnx.ModelProto, path: str) -> Whole:
    """What a file holds that errors call `path`."""
    weights = {t.name for t in model.graph.initializer}
    inputs = tuple(i.name for i in model.graph.input if i.name not in weights)
    return Whole(path, inputs, frozenset(o for n in model.graph.node for o in n.output))


def way_to_cut(
    model: onnx.ModelProto, inputs: Mapping[str, tuple[int, ...]], known: Collection[str], file: Whole
) -> str:
    """The command that cuts the model there, "" where there is no such place.

    inputs: shapes of those that --fix leaves; known: operators that have a converter.
    """
    try:
        folded = fold_shapes(model, inputs)
        tensors = _cut(folded, _named(model) & _batched(folded) & file.tensors, known)
    except (RuntimeError, ValueError, onnx.shape_inference.InferenceError, UnsupportedError):
        return ""
    needed = _behind(model.graph, tensors)
    given = [name for name in file.inputs if name in needed or name not in inputs]
    if not (0 < len(tensors) <= _MOST and given):
        return ""
    path = file.path if file.path.endswith(".onnx") else "model.onnx"
    cut = str(Path(path).with_name(f"{Path(path).stem}-cut.onnx"))
    call = ", ".join(json.dumps(value, ensure_ascii=False) for value in (path, cut, given, tensors))
    return f"python -c {shlex.quote(f'import onnx; onnx.utils.extract_model({call})')}"


def _named(model: onnx.ModelProto) -> set[str]:
    """Tensors that onnx.utils can make outputs of: real, and known to the inference of shapes."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.output)
    return {v.name for v in values if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}


def _batched(model: onnx.ModelProto) -> set[str]:
    return {name for name, shape in static_shapes(model).items() if shape[:1] == (1,)}


def _cut(model: onnx.ModelProto, allowed: Collection[str], known: Collection[str]) -> list[str]:
    """The fewest allowed tensors between layers and nodes without code, as late as can be, and the outputs
    that none of these nodes reaches; nothing where a layer has no such tensor behind it."""
    weights, lost = {t.name for t in model.graph.initializer}, set[str]()
    graph, made = nx.DiGraph(), list[str]()  # an edge without a capacity has no limit
    fed = {i.name for i in model.graph.input}
    for node in model.graph.node:
        if lost.intersection(node.input) or node.op_type in _CHOOSING or not has_code(node, known):
            lost.update(node.output)
            graph.add_edges_from((_Side(name, after=True), _SINK) for name in filter(None, node.input))
            continue
        layer = node.op_type in _LAYERS and weights.intersection(node.input)
        for output in filter(None, node.output):
            made.append(output)
            before, after = (_Side(output, after=side) for side in (False, True))
            graph.add_edge(before, after, **({"capacity": 1} if output in allowed else {}))
            graph.add_edges_from([(_SOURCE, before)] if layer else [])
            read = set(node.input) - weights - fed - lost
            graph.add_edges_from((_Side(name, after=True), before) for name in read)
    found = _narrowest(graph, made)
    ready = [o.name for o in model.graph.output if o.name not in lost and o.name not in found]
    return [*found, *ready] if found else []


def _narrowest(graph: nx.DiGraph, tensors: Sequence[str]) -> list[str]:
    """Those of a least cut, nearest to the sink; nothing where there is none."""
    if _SINK not in graph or _SOURCE not in graph:
        return []
    try:
        _, (_, behind) = nx.minimum_cut(graph, _SOURCE, _SINK)  # of several the last
    except nx.NetworkXUnbounded:  # a layer's result is read by what has no code
        return []
    return [t for t in tensors if _Side(t, after=False) not in behind and _Side(t, after=True) in behind]


def _behind(graph: onnx.GraphProto, tensors: Collection[str]) -> set[str]:
    """All that these tensors are computed from."""
    needed = set(tensors)
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
    return needed
