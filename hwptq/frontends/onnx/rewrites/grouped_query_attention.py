"""GroupQueryAttention of ONNX Runtime: causal attention whose keys and values serve several heads each.

Past keys and values stand before the new ones, and all are seen: a cache of a fixed size that is filled
up to seqlens_k is another computation, which the check of the import tells apart on a sample.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx

from hwptq.errors import UnsupportedError

from .parts import Parts, given, made
from .rotary_positions import RotaryPositions
from .surroundings import Surroundings, attribute

_LOWEST = float(np.finfo(np.float32).min)
_REFUSED = {10: "an attention bias", 11: "a sink of heads"}


def grouped_query_attention(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """softmax(scale q k + mask) v, with rotary positions. Raises UnsupportedError for what is not known."""
    for index, what in _REFUSED.items():
        if given(node, index):
            raise UnsupportedError(f"node {node.name!r} ({node.op_type}): {what} is not supported")
    for name in ("smooth_softmax", "qk_output", "kv_cache_bit_width"):
        if attribute(node, name, 0):
            raise UnsupportedError(f"node {node.name!r} ({node.op_type}): {name} is not supported")
    if attribute(node, "local_window_size", -1) == 0:  # nothing says what it shows
        raise UnsupportedError(f"node {node.name!r} ({node.op_type}): a window of 0 is not supported")
    parts = Parts(around, node)
    heads, shared = int(attribute(node, "num_heads")), int(attribute(node, "kv_num_heads"))
    query, key, value = _heads(parts, node, heads, shared)
    past_key, past_value = given(node, 3), given(node, 4)
    steps = parts.size(query, 2)
    past = parts.size(past_key, 2) if past_key else parts.constant(0, np.int64)
    total = parts.op("Add", [past, steps])
    one = parts.constant(1, np.int64)
    rows = parts.op("Range", [past, total, one])
    if attribute(node, "do_rotary", 0):
        cos, sin, places = (given(node, i) for i in (7, 8, 9))
        neighbours = bool(attribute(node, "rotary_interleaved", 0))
        rotary = RotaryPositions(parts, cos, sin, places or rows, bool(places), neighbours)
        query, key = rotary.turned(query), rotary.turned(key)
    key = _joined(parts, past_key, key, made(node, 1))
    value = _joined(parts, past_value, value, made(node, 2))
    keys, values = (_repeated(parts, t, heads, shared) for t in (key, value))
    scores = _scores(parts, node, query, keys)
    columns = parts.op("Range", [parts.constant(0, np.int64), total, one])
    masked = parts.op("Where", [_visible(parts, node, rows, columns), scores, parts.constant(_LOWEST)])
    mixed = parts.op("MatMul", [parts.op("Softmax", [masked], axis=-1), values])
    flat = parts.op("Transpose", [mixed], perm=[0, 2, 1, 3])
    parts.op("Reshape", [flat, parts.ints(0, 0, -1)], node.output[0])
    return parts.nodes


def _heads(parts: Parts, node: onnx.NodeProto, heads: int, shared: int) -> list[str]:
    """Queries, keys and values [batch, heads, steps, size], which may come in one tensor."""
    if given(node, 1):
        counts = zip(node.input[:3], (heads, shared, shared), strict=True)
        split = [parts.reshaped(tensor, 0, 0, count, -1) for tensor, count in counts]
    else:
        packed = parts.reshaped(node.input[0], 0, 0, heads + 2 * shared, -1)
        ends = (0, heads, heads + shared, heads + 2 * shared)
        split = [parts.sliced(packed, 2, a, b) for a, b in pairwise(ends)]
    return [parts.op("Transpose", [tensor], perm=[0, 2, 1, 3]) for tensor in split]


def _joined(parts: Parts, past: str, new: str, output: str) -> str:
    """What was there and what is new, along the steps."""
    if past:
        return parts.op("Concat", [past, new], output, axis=2)
    return parts.op("Identity", [new], output) if output else new


def _repeated(parts: Parts, tensor: str, heads: int, shared: int) -> str:
    """Each of `shared` heads as many times as it serves."""
    times = heads // shared
    if times == 1:
        return tensor
    wide = parts.unsqueezed(tensor, 2)
    repeated = parts.op("Concat", [wide] * times, axis=2)
    batch, steps, size = (parts.unsqueezed(parts.size(tensor, axis), 0) for axis in (0, 2, 3))
    shape = parts.op("Concat", [batch, parts.ints(heads), steps, size], axis=0)
    return parts.op("Reshape", [repeated, shape])


def _scores(parts: Parts, node: onnx.NodeProto, query: str, keys: str) -> str:
    scale = float(attribute(node, "scale", 0.0))
    if scale:
        factor = parts.constant(scale)
    else:
        size = parts.op("Cast", [parts.size(query, 3)], to=onnx.TensorProto.FLOAT)
        factor = parts.op("Reciprocal", [parts.op("Sqrt", [size])])
    products = parts.op("MatMul", [query, parts.op("Transpose", [keys], perm=[0, 1, 3, 2])])
    scores = parts.op("Mul", [products, factor])
    cap = float(attribute(node, "softcap", 0.0))
    if not cap:
        return scores
    bent = parts.op("Tanh", [parts.op("Div", [scores, parts.constant(cap)])])
    return parts.op("Mul", [bent, parts.constant(cap)])


def _visible(parts: Parts, node: onnx.NodeProto, rows: str, columns: str) -> str:
    """bool [steps, all steps]: what each step may look at."""
    rows = parts.unsqueezed(rows, 1)
    columns = parts.unsqueezed(columns, 0)
    visible = parts.op("LessOrEqual", [columns, rows])
    window = int(attribute(node, "local_window_size", -1))
    if window <= 0:
        return visible
    first = parts.op("Sub", [rows, parts.constant(window, np.int64)])
    return parts.op("And", [visible, parts.op("Greater", [columns, first])])
