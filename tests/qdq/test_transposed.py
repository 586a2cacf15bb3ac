"""Transposed convolutions that another tool has quantized: in integers, the same codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import model, node, normal, save

from hwptq import passes
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.pipeline.stages import normalize
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


@pytest.mark.parametrize(("by_channel", "relu"), [(True, False), (True, True), (False, True)])
def test_in_integers(by_channel: bool, relu: bool, tmp_path: Path) -> None:
    found = normalize(import_onnx(save(upsampler(by_channel, relu, 1), tmp_path)).module, Job(AVX2))
    integer = passes.LowerToInteger(AVX2)(found.qdq)
    assert float_nodes(integer) == []
    inputs = {"x": normal(7, 1, 4, 6, 6, spread=2.0)}
    before, after = (Interpreter(m).run(inputs)[0] for m in (found.float32, integer))
    steps = np.rint((after - before) / np.float32(0.1))
    assert np.abs(steps).max() <= 1
    assert np.mean(steps != 0) < 0.02


def test_groups_say_why_they_stay(tmp_path: Path) -> None:
    found = normalize(import_onnx(save(upsampler(False, True, 2), tmp_path)).module, Job(AVX2))
    left = float_nodes(passes.LowerToInteger(AVX2)(found.qdq))
    assert "codes of one group" in {node["name"]: node["reason"] for node in left}["up"]
