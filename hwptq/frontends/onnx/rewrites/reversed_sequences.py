"""ReverseSequence: each sequence backwards as far as it goes, as a look-up of its places."""

from __future__ import annotations

import numpy as np
import onnx

from .parts import Parts
from .surroundings import Surroundings, attribute


def reversed_sequences(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Place t of a sequence of n gets what stands at n - 1 - t, one behind its end what it has."""
    shape = around.shape(node.input[0])
    if shape is None:
        return None
    time, batch = attribute(node, "time_axis", 0), attribute(node, "batch_axis", 1)
    parts = Parts(around, node)
    along = [1] * len(shape)
    along[time] = shape[time]
    places = parts.constant(np.arange(shape[time]).reshape(along), np.int64)
    lengths = parts.op("Cast", [node.input[1]], to=onnx.TensorProto.INT64)
    lengths = parts.reshaped(lengths, *(shape[batch] if axis == batch else 1 for axis in range(len(shape))))
    from_end = parts.op("Sub", [parts.op("Sub", [lengths, parts.ints(1)]), places])
    chosen = parts.op("Where", [parts.op("Less", [places, lengths]), from_end, places])
    everywhere = parts.op("Expand", [chosen, parts.ints(*shape)])
    parts.op("GatherElements", [node.input[0], everywhere], node.output[0], axis=time)
    return parts.nodes
