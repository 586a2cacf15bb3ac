"""Layers that ONNX Runtime's optimizer fuses with what follows them, or precedes them: as standard nodes."""

from __future__ import annotations

from typing import Any

import onnx

from hwptq.errors import UnsupportedError

from .parts import Parts, given
from .surroundings import Surroundings, attribute

#: The parameters of an activation, in the order of `activation_params`.
_PARAMETERS = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta")}
_PLAIN = ("Relu", "Sigmoid", "Tanh")
_OWN = ("activation", "activation_params", "activation_alpha", "activation_beta", "activation_gamma")


def fused_conv(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """activation(convolution + Z): (X, W, B, Z)."""
    parts, added = Parts(around, node), given(node, 3)
    result = parts.op("Conv", [name for name in node.input[:3] if name], **_others(node))
    if added:
        result = parts.op("Add", [result, added])
    return _activated(parts, result)


def fused_gemm(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """activation(Gemm)."""
    parts = Parts(around, node)
    return _activated(parts, parts.op("Gemm", [name for name in node.input[:3] if name], **_others(node)))


def fused_matmul(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """alpha A B, of transposed operands where the node says so."""
    for name in ("transBatchA", "transBatchB"):
        if attribute(node, name, 0):
            raise UnsupportedError(f"node {node.name!r} ({node.op_type}): {name} is not supported")
    parts, alpha = Parts(around, node), float(attribute(node, "alpha", 1.0))
    operands = [
        _turned(parts, name) if attribute(node, flag, 0) else name
        for name, flag in zip(node.input[:2], ("transA", "transB"), strict=True)
    ]
    product = parts.op("MatMul", operands)
    parts.op("Mul", [product, parts.constant(alpha)], node.output[0])
    return parts.nodes


def _turned(parts: Parts, name: str) -> str:
    """With the last two axes exchanged."""
    rank = parts.around.rank(name)
    if rank is None:
        return parts.op("Einsum", [name], equation="...ij->...ji")
    return parts.op("Transpose", [name], perm=[*range(rank - 2), rank - 1, rank - 2])


def _others(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes that are those of the layer itself."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute if a.name not in _OWN}


def _activated(parts: Parts, tensor: str) -> list[onnx.NodeProto]:
    """The result of the node: its activation of a tensor. Raises UnsupportedError for an unknown one."""
    node, op = parts.node, attribute(parts.node, "activation", "")
    letters = ("activation_alpha", "activation_beta", "activation_gamma")
    params = attribute(node, "activation_params") or [
        value for name in letters if (value := attribute(node, name)) is not None
    ]
    if op == "Clip":
        bounds = [parts.constant(p) for p in params]
        parts.op("Clip", [tensor, *bounds], node.output[0])
    elif op in _PLAIN or op in _PARAMETERS:
        named = dict(zip(_PARAMETERS.get(op, ()), params, strict=False))
        parts.op(op, [tensor], node.output[0], **named)
    else:
        raise UnsupportedError(f"node {node.name!r} ({node.op_type}): activation {op!r} is not supported")
    return parts.nodes
