"""Transposed convolutions that another tool has quantized: in integers, the same codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper
from onnx_models import model, node, normal, save

from hwptq import passes
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.pipeline.stages import Quantized, normalize
from hwptq.pipeline.step import Job
from hwptq.report.coverage import float_nodes
from hwptq.targets import load_target

AVX2 = load_target("x86-64-avx2")


def upsampler(by_channel: bool, relu: bool, group: int) -> Any:
    """[1,4,6,6] to [1,4,12,12] in codes, for a convolution behind."""
    channels = 4 // group
    size = channels if by_channel else ()
    scale = np.full(size, 0.01, np.float32) * np.linspace(1, 3, channels, dtype=np.float32)[: size or 1]
    nodes = [
        node("QuantizeLinear", "x xs xz", "xq"),
        node("DequantizeLinear", "xq xs xz", "xf"),
        node("DequantizeLinear", "w ws wz", "wf", axis=1),
        node("ConvTranspose", "xf wf b", "c", "up", strides=[2, 2], pads=[1, 1, 1, 1], group=group),
        node("Relu" if relu else "Identity", "c", "d", "clamp"),
        node("QuantizeLinear", "d ys yz", "yq"),
        node("DequantizeLinear", "yq ys yz", "y"),
    ]
    codes = np.random.default_rng(0).integers(-120, 121, (4, channels, 4, 4)).astype(np.int8)
    constants = {
        "w": codes, "ws": scale.reshape(size), "wz": np.zeros(size, np.int8), "b": normal(1, 4),
        "xs": np.float32(0.05), "xz": np.uint8(120), "ys": np.float32(0.1), "yz": np.uint8(128),
    }  # fmt: skip
    return model(nodes, {"x": [1, 4, 6, 6]}, constants, opset=13)


@pytest.mark.parametrize(
    ("by_channel", "relu", "group"),
    [
        (True, False, 1),
        (True, True, 1),
        (False, True, 1),
        (True, False, 2),
        (False, True, 2),
        (False, False, 4),
    ],
)
def test_in_integers(by_channel: bool, relu: bool, group: int, tmp_path: Path) -> None:
    found = normalize(import_onnx(save(upsampler(by_channel, relu, group), tmp_path)).module, Job(AVX2))
    _alike(found)


@pytest.mark.parametrize("zero", [0, 40])
def test_by_channel_with_scales_of_its_own(zero: int, tmp_path: Path) -> None:
    """[4,1,4,4] in four groups, a scale for each of them; with zero points codes have 9 bits."""
    proto = upsampler(False, True, 4)
    scales = np.float32([0.01, 0.03, 0.002, 0.02])
    for tensor in proto.graph.initializer:
        if tensor.name in ("ws", "wz"):
            array = scales if tensor.name == "ws" else np.full(4, -zero, np.int8)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    weights = next(n for n in proto.graph.node if n.output[0] == "wf")
    weights.attribute[0].i = 0
    found = normalize(import_onnx(save(proto, tmp_path)).module, Job(AVX2))
    assert not found.warnings
    _alike(found)


def _alike(found: Quantized) -> None:
    """All of it in integers, and the same codes as the file's own simulation but for near-ties."""
    integer = passes.LowerToInteger(AVX2)(found.qdq)
    assert float_nodes(integer) == []
    inputs = {"x": normal(7, 1, 4, 6, 6, spread=2.0)}
    before, after = (Interpreter(m).run(inputs)[0] for m in (found.float32, integer))
    steps = np.rint((after - before) / np.float32(0.1))
    assert np.abs(steps).max() <= 1
    assert np.mean(steps != 0) < 0.02
