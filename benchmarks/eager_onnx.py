"""A graph of ONNX that is computed while it is written, so that its normalizations fit data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from onnx import helper, numpy_helper

#: Standard deviations of the logarithms of what normalizations multiply by, and of what they add: as trained
#: networks have them, so channels of one tensor differ in range.
_SCALES, _SHIFTS = 0.5, 0.5


class EagerGraph:
    """Nodes, weights, and the value of every tensor on a few samples, [N, …]; tensors go by their names."""

    def __init__(self, samples: np.ndarray, seed: int = 0):
        self._rng = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self.values = {"images": samples.astype(np.float32)}

    def proto(self, output: str) -> onnx.ModelProto:
        """The model, for one sample, with one output."""
        shapes = [("images", self.values["images"].shape), (output, self.values[output].shape)]
        given, result = (
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, *shape[1:]))
            for name, shape in shapes
        )
        graph = helper.make_graph(self._nodes, "detector", [given], [result], self._weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def node(self, kind: str, sources: Sequence[str], value: np.ndarray, **attributes: Any) -> str:
        """A node whose result on the samples is known."""
        name = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(sources), [name], name=name, **attributes))
        self.values[name] = value.astype(np.float32)
        return name

    def weight(self, array: np.ndarray) -> str:
        """A constant, float32 unless it holds integers."""
        name = f"weight_{len(self._weights)}"
        kept = array if array.dtype == np.int64 else array.astype(np.float32)
        self._weights.append(numpy_helper.from_array(kept, name))
        return name

    def convolution(
        self, x: str, channels: int, kernel: int = 1, stride: int = 1, depthwise: bool = False
    ) -> str:
        """Convolution of random weights, normalized by the samples' statistics, and SiLU."""
        inputs = self.values[x].shape[1]
        groups = inputs if depthwise else 1
        weight = self._random(self.values[x], channels, inputs // groups, kernel, kernel)
        y = _convolved(self.values[x], weight, stride, groups)
        attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "group": groups}
        made = self.node("Conv", [x, self.weight(weight)], y, pads=[kernel // 2] * 4, **attributes)
        return self.silu(self._normalized(made))

    def prediction(self, x: str, channels: int, mean: float, deviation: float) -> str:
        """A 1 x 1 convolution with bias, of such values on the samples."""
        value = self.values[x]
        y = _convolved(value, weight := self._random(value, channels, value.shape[1], 1, 1), 1, 1)
        axes = (0, 2, 3)
        factor = deviation / y.std(axis=axes)
        bias = mean - factor * y.mean(axis=axes)
        y = y * factor[:, None, None] + bias[:, None, None]
        scaled = self.weight(weight * factor[:, None, None, None])
        return self.node("Conv", [x, scaled, self.weight(bias)], y, kernel_shape=[1, 1])

    def silu(self, x: str) -> str:
        """x * sigmoid(x), as PyTorch exports it."""
        return self.node("Mul", [x, s := self.sigmoid(x)], self.values[x] * self.values[s])

    def sigmoid(self, x: str) -> str:
        return self.node("Sigmoid", [x], 1 / (1 + np.exp(-self.values[x])))

    def add(self, x: str, y: str) -> str:
        return self.node("Add", [x, y], self.values[x] + self.values[y])

    def concat(self, parts: Sequence[str], axis: int = 1) -> str:
        return self.node("Concat", parts, np.concatenate([self.values[p] for p in parts], axis), axis=axis)

    def double(self, x: str) -> str:
        """The nearest pixel, twice as high and wide."""
        value = self.values[x].repeat(2, axis=2).repeat(2, axis=3)
        scales = self.weight(np.array([1, 1, 2, 2], np.float32))
        words = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        return self.node("Resize", [x, "", scales], value, **words)

    def maximum(self, x: str, kernel: int = 5) -> str:
        """The greatest of each window, of stride 1."""
        edge = kernel // 2
        padded = np.pad(self.values[x], ((0, 0), (0, 0), (edge, edge), (edge, edge)), constant_values=-np.inf)
        value = sliding_window_view(padded, (kernel, kernel), (2, 3)).max(axis=(4, 5))
        return self.node("MaxPool", [x], value, kernel_shape=[kernel] * 2, pads=[edge] * 4, strides=[1, 1])

    def reshape(self, x: str, *shape: int) -> str:
        """shape: behind the axis of samples."""
        value = self.values[x].reshape(len(self.values[x]), *shape)
        return self.node("Reshape", [x, self.weight(np.array([1, *shape], np.int64))], value)

    def transpose(self, x: str, *axes: int) -> str:
        return self.node("Transpose", [x], self.values[x].transpose(axes), perm=list(axes))

    def part(self, x: str, first: int, end: int) -> str:
        """Channels first … end - 1."""
        bounds = [self.weight(np.array([v], np.int64)) for v in (first, end, 1)]
        return self.node("Slice", [x, *bounds], self.values[x][:, first:end])

    def _random(self, x: np.ndarray, *shape: int) -> np.ndarray:
        """Weights [out, in / groups, height, width] that look where the samples vary, as trained ones do.

        White noise gains less by them than the signal: its part along a principal component of the channels
        has the weight of the root of that component's deviation.
        """
        taps = self._rng.standard_normal((*shape[:1], 1, *shape[2:])) + 1
        if shape[1] == 1:
            return np.asarray(taps)
        channels = np.cov(x.transpose(1, 0, 2, 3).reshape(x.shape[1], -1))
        values, vectors = np.linalg.eigh(channels)
        root = vectors * np.maximum(values, 0) ** 0.25 @ vectors.T
        mixed = self._rng.standard_normal(shape[:2]) @ root
        return np.asarray(taps * mixed[:, :, None, None])

    def _normalized(self, x: str) -> str:
        value, channels = self.values[x], self.values[x].shape[1]
        mean, variance = value.mean(axis=(0, 2, 3)), value.var(axis=(0, 2, 3)) + 1e-5
        scale = np.exp(_SCALES * self._rng.standard_normal(channels))
        shift = _SHIFTS * self._rng.standard_normal(channels)
        y = (value - mean[:, None, None]) * (scale / variance**0.5)[:, None, None] + shift[:, None, None]
        constants = [self.weight(v) for v in (scale, shift, mean, variance)]
        return self.node("BatchNormalization", [x, *constants], y, epsilon=0.0)


def _convolved(x: np.ndarray, weight: np.ndarray, stride: int, groups: int) -> np.ndarray:
    """ "Same" padding; groups: 1, or as many as there are channels."""
    kernel = weight.shape[2]
    edge = kernel // 2
    padded = np.pad(x, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    windows = sliding_window_view(padded, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]
    if groups == 1:
        return np.einsum("nchwij,ocij->nohw", windows, weight, optimize=True)
    return np.einsum("nchwij,cij->nchw", windows, weight[:, 0], optimize=True)
