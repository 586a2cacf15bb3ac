"""From a file's model to the one that the importer reads: every step ONNX -> ONNX, in its order."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx

from hwptq.notices import Warning

from .apply_rewrites import apply_rewrites
from .control_flow import without_control_flow
from .fold_shapes import fold_shapes, with_inputs
from .function_bodies import with_bodies
from .fused_operators import unfused
from .negative_sizes import refuse_negative_sizes
from .qdq_form import in_qdq_form


def simplified(
    model: onnx.ModelProto, inputs: Mapping[str, tuple[int, ...]], known: Collection[str]
) -> tuple[onnx.ModelProto, list[Warning]]:
    """The model without functions, arithmetic of shapes, known branches and loops, and nodes that a rule
    rewrites; and what its user should know.

    inputs: their shapes; known: the operators that have a converter. The argument stays as it is.
    """
    refuse_negative_sizes(with_inputs(model, inputs))
    model, warned = in_qdq_form(unfused(model))
    model = without_control_flow(model, lambda m: fold_shapes(with_bodies(m, inputs, known), inputs))
    for node in model.graph.node:
        node.name = node.name or node.output[0]
    apply_rewrites(model)
    return model, warned
