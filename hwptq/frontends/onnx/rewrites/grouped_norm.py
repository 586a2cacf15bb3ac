"""Group norms that exporters wrote with an InstanceNormalization become GroupNormalization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
from onnx import TensorProto, helper

from .surroundings import Surroundings, attribute, part_of


@dataclass(frozen=True)
class _GroupNorm:
    """reshape, norm, reshape, and what scales and shifts each channel behind them."""

    x: str
    groups: int
    nodes: tuple[onnx.NodeProto, ...]
    scale: np.ndarray  # [C]
    shift: np.ndarray

    @property
    def result(self) -> str:
        return self.nodes[-1].output[0]


def with_grouped_norms(graph: onnx.GraphProto, around: Surroundings) -> None:
    """Change a graph in place: InstanceNormalization of [N, G, -1], brought back to the shape [N, C, ...] and
    then multiplied and added to by channel, is one GroupNormalization with a scale and an offset for each
    channel. Opsets before 18 have no other way to write it, and PyTorch's exporter takes this one.
    """
    if not any(node.op_type == "InstanceNormalization" for node in graph.node):
        return
    matcher = _Matcher(graph, around)
    found = [norm for node in graph.node if (norm := matcher.match(node)) is not None]
    last = {norm.result: norm for norm in found}
    replaced = {node.output[0] for norm in found for node in norm.nodes}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        name = node.output[0]
        if name in last:
            nodes.append(_written(last[name], around))
            shape = around.shape(name)
            graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        elif name not in replaced:
            nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    graph.initializer.extend(around.added)


def _written(norm: _GroupNorm, around: Surroundings) -> onnx.NodeProto:
    node = next(n for n in norm.nodes if n.op_type == "InstanceNormalization")
    vectors = [around.add(v.astype(np.float32), f"{node.name}_{part}") for v, part in (
        (norm.scale, "scale"), (norm.shift, "shift"),
    )]  # fmt: skip
    epsilon = attribute(node, "epsilon", 1e-5)
    named = {"num_groups": norm.groups, "epsilon": epsilon}
    new = part_of(node, "GroupNormalization", [norm.x, *vectors], norm.result, **named)
    new.name = node.name
    return new


class _Matcher:
    """Finds the nodes around a norm."""

    def __init__(self, graph: onnx.GraphProto, around: Surroundings):
        self._around = around
        self._made = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._outputs = {value.name for value in graph.output}

    def match(self, node: onnx.NodeProto) -> _GroupNorm | None:
        """What a node is the norm of, else None."""
        if node.op_type != "InstanceNormalization":
            return None
        before, after = self._made.get(node.input[0]), self._only_reader(node.output[0])
        if before is None or after is None or {before.op_type, after.op_type} != {"Reshape"}:
            return None
        x = before.input[0]
        shape, rows = self._around.shape(x), self._around.shape(node.input[0])
        if shape is None or rows is None or self._around.shape(after.output[0]) != shape or len(shape) < 3:
            return None
        groups = rows[1]
        if rows[0] != shape[0] or shape[1] % groups or prod(rows[2:]) != prod(shape[1:]) // groups:
            return None
        vectors = [self._around.constant(name) for name in node.input[1:]]
        if any(v is None for v in vectors):
            return None
        scale, shift = (np.repeat(np.asarray(v, np.float64), shape[1] // groups) for v in vectors)
        own = [before, node, after] if self._only_reader(node.input[0]) is not None else [node, after]
        return self._with_links(_GroupNorm(x, groups, tuple(own), scale, shift), shape)

    def _with_links(self, norm: _GroupNorm, shape: tuple[int, ...]) -> _GroupNorm:
        """With the products and sums by channel behind it."""
        values: Mapping[str, np.ndarray | None]
        while (link := self._only_reader(norm.result)) is not None and link.op_type in ("Mul", "Add"):
            values = {name: self._per_channel(name, shape) for name in link.input if name != norm.result}
            if len(values) != 1 or (value := next(iter(values.values()))) is None:
                break
            scale, shift = norm.scale, norm.shift
            scale, shift = (scale * value, shift * value) if link.op_type == "Mul" else (scale, shift + value)
            norm = _GroupNorm(norm.x, norm.groups, (*norm.nodes, link), scale, shift)
        return norm

    def _per_channel(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """A constant with one value for all channels of [N, C, ...], or one for each: float64 [C]."""
        value = self._around.constant(name)
        if value is None or value.ndim > len(shape):
            return None
        whole = value.reshape((1,) * (len(shape) - value.ndim) + value.shape)
        channels = [1, shape[1], *(1 for _ in shape[2:])]
        if any(size not in (1, limit) for size, limit in zip(whole.shape, channels, strict=True)):
            return None
        return np.broadcast_to(whole, channels).astype(np.float64).reshape(-1)

    def _only_reader(self, name: str) -> onnx.NodeProto | None:
        readers = self._readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self._outputs else None
