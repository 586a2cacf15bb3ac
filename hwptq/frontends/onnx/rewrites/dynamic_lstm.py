"""DynamicQuantizeLSTM of com.microsoft: an LSTM whose weights are codes [directions, inputs, 4 * hidden]."""

from __future__ import annotations

import numpy as np
import onnx

from hwptq.errors import UnsupportedError

from .parts import Parts, given
from .surroundings import Surroundings, changed

_STANDARD = 8  # inputs of the LSTM of ONNX; behind them come scales and zero points


def dynamic_quantize_lstm(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The standard layer, with the real values of its weights. A scale may be one for a direction, or for
    each of its columns; activations are rounded as the options of the compilation say.
    """
    parts = Parts(around, node)
    inputs = [given(node, i) for i in range(_STANDARD)]
    for position in (1, 2):
        first = _STANDARD + 2 * (position - 1)
        names = inputs[position], given(node, first), given(node, first + 1)
        arrays = [around.constant(name) for name in names]
        if any(array is None for array in arrays):
            raise UnsupportedError(
                f"node {node.name!r} ({node.op_type}): its weights are no constants; export it with them"
            )
        codes, scale, zero = (np.asarray(array) for array in arrays)
        columns = [a.reshape(codes.shape[0], 1, -1) for a in (scale, zero)]
        real = (codes.astype(np.float32) - columns[1].astype(np.float32)) * columns[0]
        inputs[position] = parts.constant(real.swapaxes(1, 2))
    while not inputs[-1]:
        inputs.pop()
    layer = changed(node, inputs)
    layer.op_type, layer.domain = "LSTM", ""
    return [layer]
