"""Models of the shapes that people deploy with recurrent layers, random weights."""

from __future__ import annotations

import numpy as np
import onnx
from onnx_models import model, node, normal


def voice_detector(hidden: int = 24) -> onnx.ModelProto:
    """One step of an LSTM whose states are inputs and outputs, behind a convolution of sound."""
    rows = 4 * hidden
    constants = {
        "w": normal(1, 16, 1, 3, spread=0.5),
        "W": normal(2, 1, rows, 16, spread=0.25),
        "R": normal(3, 1, rows, hidden, spread=0.2),
        "b": normal(4, 1, 2 * rows, spread=0.1),
        "head": normal(5, hidden, 1, spread=0.3),
        "first": np.array([0]),
    }
    nodes = [
        node("Conv", "audio w", "sound", "conv", kernel_shape=[3], strides=[2], pads=[1, 1]),
        node("Relu", "sound", "loud"),
        node("ReduceMean", "loud", "mean", axes=[2], keepdims=1),
        node("Transpose", "mean", "steps", perm=[2, 0, 1]),
        node("LSTM", "steps W R b - h c", "Y hn cn", "lstm", hidden_size=hidden),
        node("Squeeze", "hn first", "state"),
        node("MatMul", "state head", "logit"),
        node("Sigmoid", "logit", "speech"),
    ]
    inputs = {"audio": (1, 1, 64), "h": (1, 1, hidden), "c": (1, 1, hidden)}
    return model(nodes, inputs, constants, ["speech", "hn", "cn"])


def text_recogniser(hidden: int = 16, classes: int = 20) -> onnx.ModelProto:
    """Convolutions, a bidirectional LSTM over the columns of an image, a dense layer for each."""
    rows = 4 * hidden
    constants = {
        "w": normal(1, 24, 3, 3, 3, spread=0.3),
        "W": normal(3, 2, rows, 24, spread=0.25),
        "R": normal(4, 2, rows, hidden, spread=0.25),
        "b": normal(5, 2, 2 * rows, spread=0.1),
        "fc": normal(6, 2 * hidden, classes, spread=0.3),
        "axis": np.array([2]),
        "flat": np.array([0, 0, -1]),
    }
    nodes = [
        node("Conv", "x w", "image", "conv", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        node("Relu", "image", "shown"),
        node("MaxPool", "shown", "row", kernel_shape=[8, 1], strides=[8, 1]),
        node("Squeeze", "row axis", "columns"),
        node("Transpose", "columns", "steps", perm=[2, 0, 1]),
        node("LSTM", "steps W R b", "Y", "lstm", hidden_size=hidden, direction="bidirectional"),
        node("Transpose", "Y", "both", perm=[0, 2, 1, 3]),
        node("Reshape", "both flat", "read"),
        node("MatMul", "read fc", "logits"),
    ]
    return model(nodes, {"x": (1, 3, 16, 32)}, constants, ["logits"])


def keyword_spotter(hidden: int = 20) -> onnx.ModelProto:
    """A GRU over 25 frames, and a dense layer on its last state."""
    rows = 3 * hidden
    constants = {
        "W": normal(2, 1, rows, 10, spread=0.3),
        "R": normal(3, 1, rows, hidden, spread=0.25),
        "b": normal(4, 1, 2 * rows, spread=0.1),
        "head": normal(5, hidden, 12, spread=0.4),
        "bias": normal(6, 12),
        "first": np.array([0]),
    }
    nodes = [
        node("Transpose", "frames", "steps", perm=[1, 0, 2]),
        node("GRU", "steps W R b", "Y hn", "gru", hidden_size=hidden, linear_before_reset=1),
        node("Squeeze", "hn first", "state"),
        node("Gemm", "state head bias", "word"),
    ]
    return model(nodes, {"frames": (1, 25, 10)}, constants, ["word"])


MODELS = {f.__name__: f for f in (voice_detector, text_recogniser, keyword_spotter)}


def samples(proto: onnx.ModelProto, count: int, first: int = 100) -> list[dict[str, np.ndarray]]:
    """Random inputs; hidden states lie within ±1."""
    found = []
    for i in range(count):
        sample = {
            v.name: normal(first + i, *(d.dim_value for d in v.type.tensor_type.shape.dim))
            for v in proto.graph.input
        }
        found.append({name: np.tanh(x) if name == "h" else x for name, x in sample.items()})
    return found
