"""The rules in their order, over a graph whose input shapes are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from hwptq.errors import UnsupportedError

from .fold_shapes import static_shapes
from .read_file import node_name, one_line
from .rewrites.absent_inputs import absent_inputs
from .rewrites.channel_response import channel_response
from .rewrites.einsum import einsum
from .rewrites.evaluation_mode import refuse_training
from .rewrites.explicit_padding import explicit_padding, same_padding
from .rewrites.finite_constants import finite_constants
from .rewrites.finite_logarithms import finite_logarithms
from .rewrites.grouped_norm import with_grouped_norms
from .rewrites.height_one import with_height
from .rewrites.known_choices import added_nothing, known_choice
from .rewrites.one_hot import one_hot
from .rewrites.other_recurrence import other_recurrence
from .rewrites.parametric_relu import parametric_relu
from .rewrites.resize_axes import resize_axes
from .rewrites.resize_matrices import resize_matrices
from .rewrites.reversed_sequences import reversed_sequences
from .rewrites.roi_align import roi_align
from .rewrites.scatter import scatter
from .rewrites.scatter_row import scatter_row
from .rewrites.slice_ends import slice_ends
from .rewrites.surroundings import Rule, Surroundings

#: By operator; those of one operator follow each other.
_RULES: Mapping[str, tuple[Rule, ...]] = {
    "Add": (added_nothing,),
    "AveragePool": (same_padding,),
    "BatchNormalization": (refuse_training,),
    "Concat": (absent_inputs,),
    "Conv": (same_padding,),
    "ConvTranspose": (explicit_padding,),
    "Dropout": (refuse_training,),
    "Einsum": (einsum,),
    "GRU": (other_recurrence,),
    "LRN": (channel_response,),
    "LSTM": (other_recurrence,),
    "LpPool": (same_padding,),
    "MaxPool": (same_padding,),
    "OneHot": (one_hot,),
    "PRelu": (parametric_relu,),
    "RNN": (other_recurrence,),
    "Resize": (absent_inputs, resize_axes, resize_matrices),
    "ReverseSequence": (reversed_sequences,),
    "RoiAlign": (roi_align,),
    "ScatterElements": (scatter_row, scatter),
    "ScatterND": (scatter_row, scatter),
    "Slice": (slice_ends,),
    "Where": (known_choice,),
}


def apply_rewrites(model: onnx.ModelProto) -> None:
    """Change `model` in place. Raises UnsupportedError for what no rule can make right."""
    finite_constants(model.graph)
    finite_logarithms(model)
    _each(model, _RULES)
    with_grouped_norms(model.graph, Surroundings(model.graph, static_shapes(model)))
    with_height(model.graph, Surroundings(model.graph, static_shapes(model)))
    _each(model, _RULES)  # what has a height now


def _each(model: onnx.ModelProto, rules: Mapping[str, tuple[Rule, ...]]) -> None:
    graph = model.graph
    if not any(node.op_type in rules for node in graph.node):
        return
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
    around = Surroundings(graph, static_shapes(model), opset)
    nodes = list(graph.node)
    for op, chain in rules.items():
        for rule in chain:
            nodes = [new for node in nodes for new in _by(rule, op, around, node) or [node]]
    read = _read(nodes, graph)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in read]
    del graph.node[:]
    graph.node.extend(copies)
    graph.initializer.extend(around.added)


def _read(nodes: Sequence[onnx.NodeProto], graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Without those that nothing reads any more; all of them where a node has a graph of its own."""
    if any(a.HasField("g") for node in nodes for a in node.attribute):
        return list(nodes)
    wanted, kept = {value.name for value in graph.output}, []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1]


def _by(rule: Rule, op: str, around: Surroundings, node: onnx.NodeProto) -> Sequence[onnx.NodeProto] | None:
    """What a rule makes of a node of `op`, None for nothing. Raises UnsupportedError that names it."""
    if node.op_type != op:
        return None
    try:
        return rule(around, node)
    except UnsupportedError:
        raise
    except Exception as error:  # rules take nodes to be as ONNX says, which its checker doesn't look at
        raise UnsupportedError(
            f"{node_name(node)}: its attributes and constants don't fit together ({one_line(error)})"
        ) from error
