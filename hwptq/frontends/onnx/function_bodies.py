"""Functions as their bodies: those that a file defines, and operators that ONNX defines by others."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx
from onnx import inliner

from .fold_shapes import with_inputs

#: Also where the importer has a converter: that one is of another operator, or of an older version.
_ALWAYS = ("Attention", "RMSNormalization", "RotaryEmbedding")


def with_bodies(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], known: Collection[str]
) -> onnx.ModelProto:
    """The model without calls of functions; `known`: the operators that have a converter.

    Nodes of a body have the name of the node that they stand for.
    """
    if model.functions:
        model = _named(model, inliner.inline_local_functions(model))
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
    wanted = {("", n.op_type) for n in model.graph.node if _has_body(n, opset, known)}
    if not wanted:
        return model
    model = _with_defaults(model, {op for _, op in wanted}, opset)
    typed = onnx.shape_inference.infer_shapes(with_inputs(model, shapes), data_prop=True)
    for tensor in typed.graph.initializer:
        typed.graph.value_info.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    bodies = inliner.inline_selected_functions(typed, sorted(wanted), inline_schema_functions=True)
    return with_bodies(_named(model, bodies), shapes, known)  # bodies may call functions


def _with_defaults(model: onnx.ModelProto, wanted: Collection[str], opset: int) -> onnx.ModelProto:
    """The model with the attributes that its nodes leave to the standard: bodies refer to them."""
    given, model = model, onnx.ModelProto()
    model.CopyFrom(given)
    for node in model.graph.node:
        if node.domain in ("", "ai.onnx") and node.op_type in wanted:
            there = {a.name for a in node.attribute}
            known = onnx.defs.get_schema(node.op_type, opset).attributes
            left = [a.default_value for name, a in known.items() if name not in there]
            node.attribute.extend(value for value in left if value.type)
    return model


def _has_body(node: onnx.NodeProto, opset: int, known: Collection[str]) -> bool:
    if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type, opset):
        return False
    schema = onnx.defs.get_schema(node.op_type, opset)
    if not (schema.has_function or schema.has_context_dependent_function):
        return False
    several = node.op_type == "LayerNormalization" and sum(map(bool, node.output)) > 1
    return several or node.op_type in _ALWAYS or node.op_type not in known


def _named(before: onnx.ModelProto, after: onnx.ModelProto) -> onnx.ModelProto:
    """`after`, in which bodies stand in the place of nodes of `before`, with a name on every node."""
    made_by = {o: node.name or node.output[0] for node in before.graph.node for o in node.output if o}
    name, step = "", 0
    for node in reversed(after.graph.node):  # the last of a body gives what the node gave that it stands for
        found = next((made_by[o] for o in node.output if o in made_by), None)
        name, step = (name, step + 1) if found is None else (found, 0)
        node.name = f"{name}#{step}" if step else name
    return after
