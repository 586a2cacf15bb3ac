"""Small models that every fuzzed file starts from, and data for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx_models import model, node, normal

SAMPLES = 4


@dataclass(frozen=True)
class Base:
    """A model, and the shapes of its inputs without the batch."""

    proto: onnx.ModelProto
    inputs: Mapping[str, tuple[int, ...]]

    def data(self) -> dict[str, np.ndarray]:
        """Samples of every input."""
        shapes = enumerate(self.inputs.items())
        return {name: normal(seed, SAMPLES, *shape) for seed, (name, shape) in shapes}

    def write_data(self, folder: Path) -> Path:
        """folder/data.npz."""
        np.savez(folder / "data.npz", **self.data())
        return folder / "data.npz"


def convolutions() -> Base:
    """Convolutions, a residual addition, pooling, a dense layer."""
    nodes = [
        node("Conv", "x w1 b1", "c1", "conv1", pads=[1, 1, 1, 1], strides=[2, 2], kernel_shape=[3, 3]),
        node("BatchNormalization", "c1 s b1 m v", "n1", "norm", epsilon=1e-5),
        node("Relu", "n1", "r1", "relu"),
        node("Conv", "r1 w2", "c2", "depthwise", pads=[1, 1, 1, 1], group=8, dilations=[1, 1]),
        node("Clip", "c2 low high", "k2", "clip"),
        node("Conv", "k2 w3", "c3", "pointwise"),
        node("Add", "c3 r1", "a", "add"),
        node("MaxPool", "a", "p", "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", "p", "g", "average"),
        node("Flatten", "g", "f", "flatten", axis=1),
        node("Gemm", "f w4 b4", "y", "dense", transB=1, alpha=1.0, beta=1.0),
    ]
    constants = {
        "w1": normal(1, 8, 3, 3, 3), "b1": normal(2, 8), "s": np.ones(8, np.float32), "m": normal(3, 8),
        "v": np.ones(8, np.float32), "w2": normal(4, 8, 1, 3, 3), "w3": normal(5, 8, 8, 1, 1),
        "low": np.float32(0), "high": np.float32(6), "w4": normal(6, 5, 8), "b4": normal(7, 5),
    }  # fmt: skip
    return Base(model(nodes, {"x": ["N", 3, 8, 8]}, constants), {"x": (3, 8, 8)})


def movements() -> Base:
    """Padding, splitting, joining, resizing, slicing, then a dense layer on tokens."""
    nodes = [
        node("Pad", "x pads zero", "p", "pad"),
        node("Conv", "p w b", "c", "conv", auto_pad="SAME_UPPER"),
        node("PRelu", "c slope", "r", "prelu"),
        node("Split", "r parts", "s1 s2", "split", axis=1),
        node("Sigmoid", "s2", "g", "sigmoid"),
        node("Mul", "s1 g", "m", "mul"),
        node("Concat", "m s1", "j", "concat", axis=1),
        node("AveragePool", "j", "a", "average", kernel_shape=[2, 2], strides=[2, 2], count_include_pad=1),
        node("Resize", "a - sizes", "z", "resize", mode="nearest",
             coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        node("Slice", "z starts ends axes", "l", "slice"),
        node("Transpose", "l", "t", "transpose", perm=[0, 2, 3, 1]),
        node("Reshape", "t shape", "h", "reshape"),
        node("MatMul", "h v", "d", "dense"),
        node("LayerNormalization", "d scale bias", "n", "norm", axis=-1, epsilon=1e-5),
        node("Softmax", "n", "y", "softmax", axis=-1),
    ]  # fmt: skip
    constants = {
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "zero": np.float32(0), "w": normal(1, 8, 3, 3, 3),
        "b": normal(2, 8), "slope": normal(3, 8, 1, 1), "parts": np.array([4, 4]),
        "sizes": np.array([1, 1, 2, 2], np.float32), "starts": np.array([0]), "ends": np.array([4]),
        "axes": np.array([2]), "shape": np.array([1, -1, 8]), "v": normal(4, 8, 6),
        "scale": np.ones(6, np.float32), "bias": normal(5, 6),
    }  # fmt: skip
    return Base(model(nodes, {"x": [1, 3, 6, 6]}, constants), {"x": (3, 6, 6)})


def attention() -> Base:
    """Two inputs, products of activations, a token taken out."""
    nodes = [
        node("MatMul", "x wq", "q", "query"),
        node("MatMul", "x wk", "k", "key"),
        node("Transpose", "k", "kt", "turn", perm=[0, 2, 1]),
        node("MatMul", "q kt", "s", "scores"),
        node("Softmax", "s", "p", "softmax", axis=-1),
        node("MatMul", "p z", "o", "values"),
        node("Add", "o z", "r", "add"),
        node("Gather", "r index", "t", "token", axis=1),
        node("Gemm", "t w b", "y", "dense"),
    ]
    constants = {
        "wq": normal(1, 8, 8), "wk": normal(2, 8, 8), "w": normal(3, 8, 4), "b": normal(4, 4),
        "index": np.array(0),
    }  # fmt: skip
    shapes = {"x": (5, 8), "z": (5, 8)}
    return Base(model(nodes, {k: [1, *v] for k, v in shapes.items()}, constants), shapes)


def quantized() -> Base:
    """A model with QuantizeLinear and DequantizeLinear, as other tools write it."""
    nodes = [
        node("QuantizeLinear", "x sx zx", "xq", "q"),
        node("DequantizeLinear", "xq sx zx", "xd", "dq"),
        node("DequantizeLinear", "w sw zw", "wd", "dqw", axis=0),
        node("Conv", "xd wd", "c", "conv", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r", "relu"),
        node("QuantizeLinear", "r sr zx", "rq", "qr"),
        node("DequantizeLinear", "rq sr zx", "y", "dqr"),
    ]
    weights = np.random.default_rng(1).integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
    constants = {
        "sx": np.float32(0.03), "zx": np.uint8(128), "w": weights, "sw": np.full(4, 0.01, np.float32),
        "zw": np.zeros(4, np.int8), "sr": np.float32(0.05),
    }  # fmt: skip
    return Base(model(nodes, {"x": [1, 3, 6, 6]}, constants), {"x": (3, 6, 6)})


BASES: tuple[Callable[[], Base], ...] = (convolutions, movements, attention, quantized)
