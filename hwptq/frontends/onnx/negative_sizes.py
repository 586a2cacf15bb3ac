"""Sizes below zero, of tensors that are sliced: there ONNX's shape inference ends the process."""

from __future__ import annotations

import onnx

from hwptq.errors import UnsupportedError
from hwptq.targets.isolate import Crash, can_isolate, isolated

from .read_file import node_name

#: Bytes of a model that is tried in a process of its own; with a larger one that would take seconds.
_MOST_TRIED = 2**26
_ENDS = "Slice"  # the operator whose inference has assertions


def refuse_negative_sizes(model: onnx.ModelProto) -> None:
    """Raise UnsupportedError that names the first node that slices what has a negative size.

    The shapes of the inputs must be known.
    """
    slices = [i for i, node in enumerate(model.graph.node) if node.op_type == _ENDS]
    if not slices or not can_isolate() or model.ByteSize() > _MOST_TRIED:
        return
    if _ends(model, len(model.graph.node)):
        first = next((i for i in slices if _ends(model, i + 1)), slices[0])
        raise UnsupportedError(
            f"{node_name(model.graph.node[first])}: what it slices has a negative size; look at the pads, "
            f"scales and windows of the nodes before it, and at the sizes of the inputs (--axis)"
        )


def _ends(model: onnx.ModelProto, count: int) -> bool:
    """Whether inference over the first `count` nodes ends the process."""

    def work() -> bool:
        part = onnx.ModelProto()
        part.CopyFrom(model)
        del part.graph.node[count:]
        try:
            onnx.shape_inference.infer_shapes(part, data_prop=True)
        except Exception:  # told in time
            return False
        return True

    try:
        isolated(work)
    except Crash:
        return True
    return False
