"""Rotary positions: halves of a head, or neighbours, are turned; RotaryEmbedding of ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from hwptq.errors import UnsupportedError

from .parts import Parts
from .surroundings import Surroundings, attribute

_HEADS = "computed angles, or those of a part of each head, are not supported without num_heads"


def rotary_embedding(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """(x [batch, steps, width] or [batch, heads, steps, size], positions [batch, steps] or the first one [1],
    cosines, sines) -> the same shape."""
    if attribute(node, "is_packed_batching", 0):
        raise UnsupportedError(f"node {node.name!r} ({node.op_type}): is_packed_batching is not supported")
    parts = Parts(around, node)
    heads, part = (int(attribute(node, name, 0)) for name in ("num_heads", "rotary_embedding_dim"))
    x, positions, cos, sin = node.input[:4]
    flat = around.rank(x) != 4
    if flat:
        sizes, cache = (heads, -1), around.constant(cos)
        if not heads:
            if cache is None or part:
                raise UnsupportedError(f"node {node.name!r} ({node.op_type}): {_HEADS}")
            sizes = (-1, 2 * cache.shape[1])
        x = parts.op("Transpose", [parts.reshaped(x, 0, 0, *sizes)], perm=[0, 2, 1, 3])
    by_batch = around.rank(positions) != 1
    if not by_batch:
        places = [parts.constant(0, np.int64), parts.size(x, 2), parts.constant(1, np.int64)]
        positions = parts.op("Add", [parts.op("Range", places), positions])
    rotary = RotaryPositions(parts, cos, sin, positions, by_batch, bool(attribute(node, "interleaved", 0)))
    if not flat:
        rotary.turned(x, node.output[0])
        return parts.nodes
    turned = parts.op("Transpose", [rotary.turned(x)], perm=[0, 2, 1, 3])
    parts.op("Reshape", [turned, parts.ints(0, 0, -1)], node.output[0])
    return parts.nodes


@dataclass(frozen=True)
class RotaryPositions:
    """Turns heads by the rows `positions` of the caches `cos` and `sin`, [most steps, size / 2]; by_batch:
    positions have an axis for the batch; neighbours: pairs are neighbours, not of one place in two halves."""

    parts: Parts
    cos: str
    sin: str
    positions: str
    by_batch: bool
    neighbours: bool

    def turned(self, x: str, output: str = "") -> str:
        """x [batch, heads, steps, size] with its positions; what the caches have no angles for stays."""
        parts = self.parts
        cos, sin = (self._angles(cache) for cache in (self.cos, self.sin))
        half = parts.unsqueezed(parts.size(self.cos, 1), 0)
        turned_size = parts.op("Mul", [half, parts.ints(2)])
        size = parts.unsqueezed(parts.size(x, 3), 0)
        axis, zero = parts.ints(3), parts.ints(0)
        turned = parts.op("Slice", [x, zero, turned_size, axis])
        rest = parts.op("Slice", [x, turned_size, size, axis])
        if self.neighbours:
            two = parts.ints(2)
            a = parts.op("Slice", [turned, zero, turned_size, axis, two])
            b = parts.op("Slice", [turned, parts.ints(1), turned_size, axis, two])
        else:
            a = parts.op("Slice", [turned, zero, half, axis])
            b = parts.op("Slice", [turned, half, turned_size, axis])
        first = parts.op("Sub", [parts.op("Mul", [a, cos]), parts.op("Mul", [b, sin])])
        second = parts.op("Add", [parts.op("Mul", [a, sin]), parts.op("Mul", [b, cos])])
        if self.neighbours:
            pairs = [parts.unsqueezed(t, 4) for t in (first, second)]
            joined = parts.op("Concat", pairs, axis=4)
            shape = parts.op("Shape", [turned])
            both = parts.op("Reshape", [joined, shape])
        else:
            both = parts.op("Concat", [first, second], axis=3)
        return parts.op("Concat", [both, rest], output, axis=3)

    def _angles(self, cache: str) -> str:
        """[1 or batch, 1, steps, size / 2] of the positions."""
        found = self.parts.op("Gather", [cache, self.positions])
        return self.parts.unsqueezed(found, *((1,) if self.by_batch else (0, 1)))
