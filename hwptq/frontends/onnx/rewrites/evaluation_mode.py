"""Operators that were exported in training: what they would compute is not what the trained model gives."""

from __future__ import annotations

import onnx

from hwptq.errors import UnsupportedError

from .parts import given
from .surroundings import Surroundings, attribute, changed


def refuse_training(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Raise UnsupportedError for a BatchNormalization by the statistics of its batch, and for a Dropout that
    drops, or may drop; one that drops nothing is told so by its ratio."""
    batch_norm = node.op_type == "BatchNormalization"
    switch = "" if batch_norm else given(node, 2)
    training = around.constant(switch) if switch else attribute(node, "training_mode", 0)
    if training is not None and not training:
        return None
    ratio = around.constant(given(node, 1)) if given(node, 1) and not batch_norm else None
    if ratio is not None and not ratio.any():
        return [changed(node, [*node.input[:2]])]
    if training is None:
        raise UnsupportedError(
            f"node {node.name!r} ({node.op_type}): {switch!r}, by which it trains or not, is computed; "
            "export the model for inference, or fix the input that decides: --fix NAME=false"
        )
    raise UnsupportedError(
        f"node {node.name!r} ({node.op_type}) is in training mode; export the model for inference "
        f"(model.eval() in PyTorch)"
    )
