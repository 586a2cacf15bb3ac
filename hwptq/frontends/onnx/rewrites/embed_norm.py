"""EmbedLayerNormalization: the embeddings of words, positions and segments, and the norm of their sum."""

from __future__ import annotations

import numpy as np
import onnx

from .fused_norms import write_layer_norm
from .parts import Parts, given, made
from .surroundings import Surroundings, attribute

_EPSILON = 1e-12


def embed_norm(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """(ids, segments?, words, places, segment table?, gamma, beta, mask?, position ids?) -> (norm, the number
    of ones in each row of the mask, the sum)."""
    parts = Parts(around, node)
    ids, segments, words, places, table, gamma, beta, mask, positions = (given(node, i) for i in range(9))
    if not positions:
        ends = [parts.constant(0, np.int64), parts.size(ids, 1), parts.constant(1, np.int64)]
        positions = parts.op("Range", ends)
    terms = [parts.op("Gather", [words, ids]), parts.op("Gather", [places, positions])]
    if segments and table:
        terms.append(parts.op("Gather", [table, segments]))
    total = terms[0]
    for i, term in enumerate(terms[1:], 2):
        total = parts.op("Add", [total, term], made(node, 2) if i == len(terms) else "")
    epsilon = float(attribute(node, "epsilon", _EPSILON))
    write_layer_norm(parts, total, gamma, beta, epsilon)
    if made(node, 1):  # zeros where there is no mask: a score with all others hidden is as it was
        counted = parts.reduced("ReduceSum", mask or parts.op("Sub", [ids, ids]), [1], keepdims=0)
        parts.op("Cast", [counted], node.output[1], to=onnx.TensorProto.INT32)
    return parts.nodes
