"""Operators that ONNX Runtime's optimizer makes, as the standard nodes that they stand for.

They come before anything looks at shapes: ONNX infers none behind an operator of another domain.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from .rewrites.embed_norm import embed_norm
from .rewrites.fused_attention import attention, multi_head_attention
from .rewrites.fused_gelu import fast_gelu, gelu
from .rewrites.fused_layers import fused_conv, fused_gemm, fused_matmul
from .rewrites.fused_norms import OPSET_OF_LAYER_NORM, layer_norm, simplified_layer_norm, skip_norm
from .rewrites.grouped_query_attention import grouped_query_attention
from .rewrites.quick_gelu import quick_gelu
from .rewrites.rotary_positions import rotary_embedding
from .rewrites.surroundings import Rule, Surroundings

_RULES: Mapping[str, Rule] = {
    "Attention": attention,
    "BiasGelu": gelu,
    "EmbedLayerNormalization": embed_norm,
    "FastGelu": fast_gelu,
    "FusedConv": fused_conv,
    "FusedGemm": fused_gemm,
    "FusedMatMul": fused_matmul,
    "Gelu": gelu,
    "GroupQueryAttention": grouped_query_attention,
    "LayerNormalization": layer_norm,
    "MultiHeadAttention": multi_head_attention,
    "QuickGelu": quick_gelu,
    "RotaryEmbedding": rotary_embedding,
    "SimplifiedLayerNormalization": simplified_layer_norm,
    "SkipLayerNormalization": skip_norm,
    "SkipSimplifiedLayerNormalization": skip_norm,
    "TransposeMatMul": fused_matmul,
}
_DOMAIN = "com.microsoft"
#: Operators that files name without a domain, though the standard has none of that name before the opset.
_NAMELESS = {"SimplifiedLayerNormalization": None, "LayerNormalization": OPSET_OF_LAYER_NORM}


def name_domains(model: onnx.ModelProto) -> None:
    """Give operators their domain where files leave it out, so that the standard is not asked for them."""
    opset = _opset(model)
    named = [op for op, since in _NAMELESS.items() if since is None or opset < since]
    found = [node for node in model.graph.node if node.op_type in named and not node.domain]
    for node in found:
        node.domain = _DOMAIN
    if found and all(o.domain != _DOMAIN for o in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))


def unfused(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model with standard nodes in the place of fused ones; itself where there are none. Raises
    UnsupportedError for what a node asks for and no rule knows."""
    if not any(_is_fused(node) for node in model.graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for node in graph.node:
        node.name = node.name or node.output[0]
    around = Surroundings(graph, _known_shapes(copy), _opset(model))
    nodes = [
        n for node in graph.node for n in ((_is_fused(node) and _RULES[node.op_type](around, node)) or [node])
    ]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    graph.initializer.extend(around.added)
    return copy


def _opset(model: onnx.ModelProto) -> int:
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)


def _known_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shapes of tensors before the first fused node, -1 for a size that the file leaves open."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info):
        tensor = value.type.tensor_type
        if tensor.HasField("shape"):
            dims = tensor.shape.dim
            shapes[value.name] = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dims)
    return shapes


def _is_fused(node: onnx.NodeProto) -> bool:
    return node.domain == _DOMAIN and node.op_type in _RULES
