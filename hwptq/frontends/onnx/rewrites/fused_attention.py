"""Attention and MultiHeadAttention of ONNX Runtime: softmax(scale q k + mask) v as standard nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx

from hwptq.errors import UnsupportedError

from .parts import Parts, given, made
from .surroundings import Surroundings, attribute

_LOWEST = float(np.finfo(np.float32).min)
_HIDDEN = -10000.0  # added to the scores of what a mask hides


def attention(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Of one tensor: (x, weights [in, q + k + v], bias?, mask?, past?, bias of scores?).

    Raises UnsupportedError for what is not known.
    """
    _refuse(node, ("do_rotary", "past_present_share_buffer"), {4: "past"})
    parts = Parts(around, node)
    weights, bias = around.constant(node.input[1]), _constant(parts, given(node, 2))
    if weights is None:
        raise _error(node, "its weights are computed")
    sizes = attribute(node, "qkv_hidden_sizes") or [weights.shape[1] // 3] * 3
    ends = [0, *np.cumsum(sizes).tolist()]
    parts_of_x = []
    for begin, end in pairwise(ends):
        product = parts.op("MatMul", [node.input[0], parts.constant(weights[:, begin:end])])
        if bias is not None:
            product = parts.op("Add", [product, parts.constant(bias[begin:end])])
        parts_of_x.append(product)
    split = _Attention(parts, *(_heads(parts, x) for x in parts_of_x))
    return split.written(given(node, 3), given(node, 5))


def multi_head_attention(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Of three: (q, k, v [batch, steps, width], or k and v by heads, bias?, mask?, bias of scores?, past keys
    and values?). Raises UnsupportedError for what is not known."""
    _refuse(node, ("qk_output",), {8: "past_sequence_length", 9: "cache_indirection"})
    if not (given(node, 1) and given(node, 2)):
        raise _error(node, "queries, keys and values in one tensor are not supported")
    parts = Parts(around, node)
    bias, tensors = _constant(parts, given(node, 3)), list(node.input[:3])
    if bias is not None:
        tensors = [
            parts.op("Add", [t, parts.constant(b)]) for t, b in zip(tensors, np.split(bias, 3), strict=True)
        ]
    by_heads = [t if around.rank(t) == 4 else _heads(parts, t) for t in tensors]
    for i in (1, 2):
        past, present = given(node, 5 + i), made(node, i)
        if past:
            by_heads[i] = parts.op("Concat", [past, by_heads[i]], present, axis=2)
        elif present:
            by_heads[i] = parts.op("Identity", [by_heads[i]], present)
    return _Attention(parts, *by_heads).written(given(node, 4), given(node, 5))


@dataclass(frozen=True)
class _Attention:
    """Of heads [batch, heads, steps, size]."""

    parts: Parts
    query: str
    key: str
    value: str

    def written(self, mask: str, bias: str) -> list[onnx.NodeProto]:
        """All nodes. mask: which keys are seen; bias: added to the scores; "" for none."""
        parts, node = self.parts, self.parts.node
        keys = parts.op("Transpose", [self.key], perm=[0, 1, 3, 2])
        scores = parts.op("Mul", [parts.op("MatMul", [self.query, keys]), self._scale()])
        if bias:
            scores = parts.op("Add", [scores, bias])
        if mask:
            scores = parts.op("Add", [scores, self._hidden(mask)])
        if attribute(node, "unidirectional", 0):
            scores = parts.op("Where", [self._causal(), scores, parts.constant(_LOWEST)])
        mixed = parts.op("MatMul", [parts.op("Softmax", [scores], axis=-1), self.value])
        flat = parts.op("Transpose", [mixed], perm=[0, 2, 1, 3])
        parts.op("Reshape", [flat, parts.ints(0, 0, -1)], node.output[0])
        return parts.nodes

    def _scale(self) -> str:
        parts, scale = self.parts, float(attribute(self.parts.node, "scale", 0.0))
        if scale:
            return parts.constant(scale)
        size = parts.op("Cast", [parts.size(self.query, 3)], to=onnx.TensorProto.FLOAT)
        return parts.op("Reciprocal", [parts.op("Sqrt", [size])])

    def _hidden(self, mask: str) -> str:
        """What is added to the scores: by a mask [batch, keys] or [batch, steps, keys] of ones and zeros, or
        by how many keys are there, [batch], or the end and the begin of these, [2 * batch]."""
        parts, around = self.parts, self.parts.around
        maker = around.maker(mask)
        counted = maker is not None and maker.op_type == "EmbedLayerNormalization"
        rank = 1 if counted else around.rank(mask) or 2
        if rank > 3:
            raise _error(parts.node, f"a mask of {rank} axes is not supported")
        seen = self._between(mask) if rank == 1 else parts.op("Cast", [mask], to=onnx.TensorProto.BOOL)
        wide = parts.unsqueezed(seen, *((1,) if rank == 3 else (1, 2)))
        hidden = float(attribute(parts.node, "mask_filter_value", _HIDDEN))
        return parts.op("Where", [wide, parts.constant(0.0), parts.constant(hidden)])

    def _between(self, ends: str) -> str:
        """bool [1, keys]: those of the numbers in `ends`, as ONNX Runtime has them of one sequence."""
        parts, shape = self.parts, self.parts.around.shape(ends)
        both = shape == (2,) and parts.node.op_type == "Attention"
        if not both and shape not in (None, (1,), (-1,)):
            raise _error(parts.node, "a mask of one axis must say how many keys each sequence has")
        numbers, given = self._numbers(self.key), parts.op("Cast", [ends], to=onnx.TensorProto.INT64)
        end = parts.op("Gather", [given, parts.ints(0)]) if both else given
        seen = parts.op("Less", [numbers, end])
        if both:
            begin = parts.op("Gather", [given, parts.ints(1)])
            seen = parts.op("And", [seen, parts.op("Not", [parts.op("Less", [numbers, begin])])])
        return parts.unsqueezed(seen, 0)

    def _numbers(self, tensor: str) -> str:
        """0, 1 … of its steps."""
        parts = self.parts
        ends = [parts.constant(0, np.int64), parts.size(tensor, 2), parts.constant(1, np.int64)]
        return parts.op("Range", ends)

    def _causal(self) -> str:
        """bool [steps, keys]: keys up to the step itself, the last of which is the last key."""
        parts = self.parts
        before = parts.op("Sub", [parts.size(self.key, 2), parts.size(self.query, 2)])
        rows = parts.op("Add", [self._numbers(self.query), before])
        columns = parts.unsqueezed(self._numbers(self.key), 0)
        return parts.op("LessOrEqual", [columns, parts.unsqueezed(rows, 1)])


def _heads(parts: Parts, tensor: str) -> str:
    """[batch, steps, width] -> [batch, heads, steps, size]."""
    split = parts.reshaped(tensor, 0, 0, int(attribute(parts.node, "num_heads")), -1)
    return parts.op("Transpose", [split], perm=[0, 2, 1, 3])


def _constant(parts: Parts, name: str) -> np.ndarray | None:
    """The value of an operand that must be constant; None where there is none."""
    value = parts.around.constant(name) if name else None
    if name and value is None:
        raise _error(parts.node, "its bias is computed")
    return value


def _refuse(node: onnx.NodeProto, attributes: Sequence[str], inputs: dict[int, str]) -> None:
    names = [name for name in attributes if attribute(node, name, 0)]
    names += [name for index, name in inputs.items() if given(node, index)]
    if names:
        raise _error(node, f"{names[0]} is not supported")


def _error(node: onnx.NodeProto, text: str) -> UnsupportedError:
    return UnsupportedError(f"node {node.name!r} ({node.op_type}): {text}")
