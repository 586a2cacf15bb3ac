"""ONNX Runtime's form of int4 weights: MatMulNBits instead of each MatMul by a constant."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

_MIDDLE, _MOST = 8, 7


def with_int4_weights(model: onnx.ModelProto, block: int, level: int) -> onnx.ModelProto:
    """Symmetric blocks of `block` inputs, rounded to nearest; level: the accuracy level (4 = activations in
    int8). Weights whose inputs are no whole blocks stay; so does a table that is looked up, beside its copy.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    arrays = {t.name: t for t in graph.initializer}
    turned = {
        n.output[0]: n.input[0] for n in graph.node if n.op_type == "Transpose" and n.input[0] in arrays
    }
    for node in graph.node:
        source = node.input[1] if node.op_type == "MatMul" else ""
        if source not in arrays and source not in turned:
            continue
        weight = numpy_helper.to_array(arrays[turned.get(source, source)])
        weight = weight.T if source in turned else weight
        if weight.ndim == 2 and weight.shape[0] % block == 0:
            codes, scales = _packed(weight, block)
            names = [f"{node.output[0]}.codes", f"{node.output[0]}.scales"]
            for name, array in zip(names, (codes, scales), strict=True):
                graph.initializer.append(numpy_helper.from_array(array, name))
            depth, width = weight.shape
            node.CopyFrom(
                helper.make_node(
                    "MatMulNBits",
                    [node.input[0], *names],
                    list(node.output),
                    node.name,
                    domain="com.microsoft",
                    K=depth,
                    N=width,
                    bits=4,
                    block_size=block,
                    accuracy_level=level,
                )
            )
    _without_unread(graph)
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return made


def _packed(weight: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """[K,N] -> codes uint8 [N, K / block, block / 2], two a byte, low first; scales [N * K / block]."""
    blocks = weight.T.reshape(weight.shape[1], -1, block)
    scales = np.abs(blocks).max(axis=-1) / np.float32(_MOST)
    levels = np.rint(blocks / np.maximum(scales, np.float32(1e-30))[..., None])
    codes = (np.clip(levels, -_MIDDLE, _MOST) + _MIDDLE).astype(np.uint8)
    return codes[..., ::2] | codes[..., 1::2] << 4, scales.astype(np.float32).reshape(-1)


def _without_unread(graph: onnx.GraphProto) -> None:
    """Drop nodes and constants that nothing reads any more."""
    given = {o.name for o in graph.output}
    while True:
        read = given | {name for node in graph.node for name in node.input}
        dead = [n for n in graph.node if not read & set(n.output)]
        if not dead:
            break
        for node in dead:
            graph.node.remove(node)
    kept = [t for t in graph.initializer if t.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
