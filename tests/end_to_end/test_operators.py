"""Every operator that is promised in integers, from an ONNX file to emitted code, and what stays in float."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_models import expected, model, node, normal, save

import hwptq
from hwptq.errors import UnsupportedError

#: In dB. Far below what these models reach; a wrong axis or zero point gives 0 or less.
SQNR = 15.0
INT64 = np.int64


def _convolutions() -> onnx.ModelProto:
    """Strides, dilation, groups, depthwise, asymmetric pads, a residual, batch norms, any clamp."""
    nodes = [
        node("Conv", "x w0", "a0", "conv", pads=[1, 0, 2, 1], strides=[1, 2]),
        node("BatchNormalization", "a0 g b m v", "a1", "norm"),
        node("Clip", "a1 low high", "a", "clip"),
        node("Conv", "a w1 b1", "b0", "dilated", dilations=[2, 1], pads=[2, 1, 2, 1]),
        node("Relu", "b0", "b_", "relu"),
        node("Conv", "b_ w2", "c", "grouped", group=2, auto_pad="SAME_UPPER"),
        node("Add", "c a", "d0", "residual"),
        node("Relu", "d0", "d", "residual_relu"),
        node("Conv", "d w3", "e", "depthwise", group=6, strides=[2, 1]),
        node("Conv", "e w4", "f", "twice", group=6, kernel_shape=[1, 3]),
        node("GlobalAveragePool", "f", "h", "pool"),
        node("Flatten", "h", "i", "flatten"),
        node("Gemm", "i w5 b5", "y", "dense", transB=1),
    ]
    constants = {
        "w0": normal(0, 6, 3, 3, 2), "g": normal(1, 6) + 1, "b": normal(2, 6), "m": normal(3, 6),
        "v": np.abs(normal(4, 6)) + np.float32(0.5), "low": np.float32(-0.5), "high": np.float32(4),
        "w1": normal(5, 6, 6, 3, 3, spread=0.3), "b1": normal(6, 6), "w2": normal(7, 6, 3, 3, 3, spread=0.3),
        "w3": normal(8, 6, 1, 3, 3), "w4": normal(9, 12, 1, 1, 3), "w5": normal(10, 5, 12),
        "b5": normal(11, 5),
    }  # fmt: skip
    return model(nodes, {"x": ["N", 3, 9, 12]}, constants)


def _pools_and_movement() -> onnx.ModelProto:
    """Pools, pad, slice, resize, split, concat, transpose, reshape, squeeze."""
    nodes = [
        node("MaxPool", "x", "a", "max", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1]),
        node("AveragePool", "a", "b", "average", kernel_shape=[2, 2], pads=[0, 1, 1, 0]),
        node("MaxPool", "b", "c", "ceil", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        node("Pad", "c pads", "d", "pad"),
        node("Slice", "d starts ends axes steps", "e0", "slice"),
        node("Resize", "e0 - scales", "e", "resize", nearest_mode="floor"),
        node("Split", "e parts", "p q", "split", axis=1),
        node("Sigmoid", "p", "s", "sigmoid"),
        node("Concat", "q s p", "f", "concat", axis=1),
        node("Transpose", "f", "g", "transpose", perm=[0, 2, 3, 1]),
        node("Reshape", "g shape", "h", "reshape"),
        node("MatMul", "h w", "y", "dense"),
    ]
    constants = {
        "pads": np.array([0, 1, 1, 0, 0, 2, 0, 1], INT64), "starts": np.array([1, 0], INT64),
        "ends": np.array([6, 9], INT64), "axes": np.array([1, 2], INT64), "steps": np.array([1, 2], INT64),
        "scales": np.float32([1, 1, 1.5, 2]), "parts": np.array([2, 3], INT64),
        "shape": np.array([1, 2, -1], INT64), "w": normal(1, 147, 4),
    }  # fmt: skip
    return model(nodes, {"x": [1, 4, 9, 12]}, constants)


def _two_activations() -> onnx.ModelProto:
    """Products and sums of two tensors, tables for functions of one: as in attention and gated units."""
    nodes = [
        node("MatMul", "x wq", "q", "query"),
        node("MatMul", "x wk", "k", "key"),
        node("Transpose", "k", "kt", "transpose", perm=[0, 2, 1]),
        node("MatMul", "q kt", "s", "scores"),
        node("Tanh", "s", "t", "tanh"),
        node("MatMul", "t x", "u", "values"),
        node("Mul", "u x", "m", "gate"),
        node("HardSwish", "m", "h", "swish"),
        node("Sub", "h x", "d", "difference"),
        node("LeakyRelu", "d", "l", "leaky", alpha=0.2),
        node("Add", "l half", "y", "plus_half"),
    ]
    constants = {
        "wq": normal(0, 8, 8, spread=0.3),
        "wk": normal(1, 8, 8, spread=0.3),
        "half": np.float32(0.5),
    }
    return model(nodes, {"x": [1, 5, 8]}, constants)


def _norms() -> onnx.ModelProto:
    """An instance norm with a clamp, and a group norm as an exporter writes it, with a SiLU."""
    nodes = [
        node("Conv", "x w0", "a", "first", pads=[1, 1, 1, 1]),
        node("InstanceNormalization", "a g0 b0", "b", "instance"),
        node("Relu", "b", "c", "relu"),
        node("Conv", "c w1", "d", "second", pads=[1, 1, 1, 1], strides=[2, 1]),
        node("Reshape", "d rows", "e", "before"),
        node("InstanceNormalization", "e g1 b1", "f", "group"),
        node("Reshape", "f whole", "h", "behind"),
        node("Mul", "h g2", "i", "scale"),
        node("Add", "i b2", "j", "offset"),
        node("Sigmoid", "j", "k", "sigmoid"),
        node("Mul", "j k", "l", "silu"),
        node("Conv", "l w2", "y", "third"),
    ]
    constants = {
        "w0": normal(0, 9, 3, 3, 3), "g0": normal(1, 9), "b0": normal(2, 9),
        "w1": normal(3, 12, 9, 3, 3, spread=0.3), "rows": np.array([1, 3, -1], INT64),
        "g1": np.ones(3, np.float32), "b1": np.zeros(3, np.float32), "whole": np.array([1, 12, 4, 7], INT64),
        "g2": normal(4, 12, 1, 1), "b2": normal(5, 12, 1, 1), "w2": normal(6, 4, 12, 1, 1),
    }  # fmt: skip
    return model(nodes, {"x": ["N", 3, 7, 7]}, constants)


MODELS: dict[str, tuple[Callable[[], onnx.ModelProto], set[str]]] = {
    "convolutions": (_convolutions, {"conv2d", "dense"}),
    "pools and movement": (_pools_and_movement, {"dense"}),
    "two activations": (_two_activations, {"dense", "matmul"}),
    "norms": (_norms, {"conv2d"}),
}


def compiled(proto: onnx.ModelProto, target: str, folder: Path) -> tuple[Any, list[dict[str, np.ndarray]]]:
    """A model compiled for a target, and samples."""
    value = proto.graph.input[0]
    shape = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
    samples = [{value.name: normal(100 + i, *shape)} for i in range(8)]
    path = save(proto, folder)
    return hwptq.compile(path, target, samples, output=folder / "out"), samples


def sqnr(proto: onnx.ModelProto, compiled_model: Any, samples: list[dict[str, np.ndarray]]) -> float:
    """Of the emitted code's first output against what ONNX says."""
    (first, *_), signal, noise = proto.graph.output, 0.0, 0.0
    for sample, found in zip(samples, compiled_model.run_stream(samples), strict=True):
        exact = expected(proto, sample)[0].astype(np.float64)
        assert found[first.name].shape == exact.shape
        signal += np.sum(exact**2)
        noise += np.sum((found[first.name] - exact) ** 2)
    return float(10 * np.log10(signal / noise))


@pytest.mark.parametrize("target", ["arm-cortex-a", "x86-64-vnni"])
@pytest.mark.parametrize("name", MODELS)
def test_in_integers(name: str, target: str, runnable: Callable[[str], str], tmp_path: Path):
    build, kinds = MODELS[name]
    result, samples = compiled(build(), runnable(target), tmp_path)
    report = result.report
    assert report["coverage"]["nodes_float"] == []
    assert report["coverage"]["macs_quantized"] == report["coverage"]["macs_total"] > 0
    assert {row["op"] for row in report["bits"]} == kinds
    assert report["bit_exact"]["mismatches"] == 0
    assert report["bit_exact"]["samples"] == len(samples)
    assert sqnr(build(), result, samples) > SQNR


def _with_float_parts() -> onnx.ModelProto:
    """A sum along an axis between layers in integers, a softmax and a layer norm."""
    nodes = [
        node("MatMul", "x w0", "a", "first"),
        node("Softmax", "a", "s", "softmax"),
        node("MatMul", "s w1", "b", "second"),
        node("LayerNormalization", "b gamma beta", "n", "norm"),
        node("ReduceSum", "n axis", "c", "sum", keepdims=0),
        node("MatMul", "c w2", "y", "third"),
    ]
    constants = {
        "w0": normal(0, 8, 8), "w1": normal(1, 8, 8), "w2": normal(2, 8, 8), "gamma": normal(3, 8),
        "beta": normal(4, 8), "axis": np.array([1], INT64),
    }  # fmt: skip
    return model(nodes, {"x": [1, 5, 8]}, constants)


@pytest.mark.parametrize("target", ["arm-cortex-a", "x86-64-vnni"])
def test_what_stays_in_float_runs_and_is_listed(
    target: str, runnable: Callable[[str], str], tmp_path: Path
):  # fmt: skip
    proto = _with_float_parts()
    result, samples = compiled(proto, runnable(target), tmp_path)
    report = result.report
    left = {row["name"]: row["reason"] for row in report["coverage"]["nodes_float"]}
    assert left == {"sum": "sum has no integer form"}
    assert report["coverage"]["macs_quantized"] == report["coverage"]["macs_total"]
    assert {row["name"] for row in report["bits"]} == {"first", "second", "third"}
    assert report["bit_exact"]["mismatches"] == 0
    assert report["bit_exact"]["values"] > 0
    assert sqnr(proto, result, samples) > SQNR
    golden = np.load(result.folder / "golden.npz")
    np.testing.assert_array_equal(result.run(samples[0])["y"], golden["output_0"][:1])


def test_an_operator_without_code_is_refused_before_all_work(runnable: Callable[[str], str], tmp_path: Path):
    nodes = [node("MatMul", "x w", "a", "layer"), node("NonZero", "a", "y", "places")]
    proto = model(nodes, {"x": [1, 300, 8]}, {"w": normal(0, 8, 8)})
    with pytest.raises(UnsupportedError, match=r"'places' \(NonZero\): the size of its result depends"):
        compiled(proto, runnable("x86-64-vnni"), tmp_path)
    assert not (tmp_path / "out").exists()


def test_codes_are_taken_from_places_that_float_finds(runnable: Callable[[str], str], tmp_path: Path):
    """As the first stage of a detector takes boxes where the scores are largest."""
    nodes = [
        node("MatMul", "x w", "a", "scores"),
        node("Sigmoid", "a", "s", "sure"),
        node("TopK", "s three", "best places", "choice", axis=1),
        node("Add", "places offset", "there", "shift"),
        node("MatMul", "x v", "b", "boxes"),
        node("Squeeze", "there axis", "flat", "flat"),
        node("Gather", "b flat", "y", "taken", axis=1),
    ]
    constants = {
        "w": normal(0, 8, 12), "v": normal(1, 8, 16), "three": np.array([3], INT64),
        "axis": np.array([0], INT64), "offset": np.array([2], INT64),
    }  # fmt: skip
    result, _ = compiled(model(nodes, {"x": [1, 8]}, constants), runnable("x86-64-vnni"), tmp_path)
    assert result.report["coverage"]["macs_quantized"] == result.report["coverage"]["macs_total"]
    assert result.report["bit_exact"]["mismatches"] == 0
