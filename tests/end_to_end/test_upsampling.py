"""A small U-Net: transposed convolutions and nearest-neighbour resizing in integers, from ONNX to code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import model, node, normal
from test_operators import SQNR, compiled, sqnr


def _batch_norm(channels: int, seed: int) -> dict[str, np.ndarray]:
    variance = np.abs(normal(seed + 3, channels)) + np.float32(0.5)
    values = (normal(seed, channels) + 1, normal(seed + 1, channels), normal(seed + 2, channels), variance)
    return {f"n{seed}_{i}": v for i, v in enumerate(values)}


def _unet() -> onnx.ModelProto:
    """Down twice; up by 2x2, 3x3 with output padding, 4x4 with a crop, by resizing, and in groups; skips."""
    nodes = [
        node("Conv", "x w0", "a0", "stem", pads=[1, 1, 1, 1]),
        node("Relu", "a0", "a", "stem_relu"),
        node("Conv", "a w1", "b0", "down", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "b0", "b", "down_relu"),
        node("MaxPool", "b", "c0", "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "c0 w2", "c", "bottom", pads=[1, 1, 1, 1]),
        node("ConvTranspose", "c u0 v0", "d0", "up2", strides=[2, 2]),
        node("BatchNormalization", "d0 n20_0 n20_1 n20_2 n20_3", "d1", "up2_norm"),
        node("Relu", "d1", "d", "up2_relu"),
        node("Resize", "c - scales", "e", "nearest", nearest_mode="floor"),
        node("Concat", "d b e", "f", "skip", axis=1),
        node("ConvTranspose", "f u1", "g0", "up3", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
        node("BatchNormalization", "g0 n30_0 n30_1 n30_2 n30_3", "g1", "up3_norm"),
        node("Relu", "g1", "g", "up3_relu"),
        node("ConvTranspose", "f u2", "h", "up4", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("ConvTranspose", "b u3", "j", "depthwise", strides=[2, 2], group=20),
        node("Concat", "g a h j", "i", "skip2", axis=1),
        node("Conv", "i w3", "y", "head"),
    ]
    constants = {
        "w0": normal(0, 16, 3, 3, 3, spread=0.3), "w1": normal(1, 20, 16, 3, 3, spread=0.1),
        "w2": normal(2, 24, 20, 3, 3, spread=0.1), "u0": normal(3, 24, 20, 2, 2, spread=0.2),
        "v0": normal(4, 20), "scales": np.float32([1, 1, 2, 2]), "u1": normal(5, 64, 16, 3, 3, spread=0.1),
        "u2": normal(6, 64, 5, 4, 4, spread=0.1), "u3": normal(8, 20, 1, 2, 2, spread=0.3),
        "w3": normal(7, 4, 57, 1, 1, spread=0.3),
        **_batch_norm(20, 20), **_batch_norm(16, 30),
    }  # fmt: skip
    return model(nodes, {"x": [1, 3, 16, 20]}, constants)


@pytest.mark.parametrize("target", ["arm-cortex-a", "x86-64-vnni"])
def test_a_unet_in_integers(target: str, runnable: Callable[[str], str], tmp_path: Path) -> None:
    result, samples = compiled(_unet(), runnable(target), tmp_path)
    report = result.report
    assert report["coverage"]["nodes_float"] == []
    assert report["coverage"]["macs_quantized"] == report["coverage"]["macs_total"] > 0
    assert {"up2", "up3", "up4", "depthwise"} <= {row["name"] for row in report["bits"]}
    assert report["bit_exact"]["mismatches"] == 0
    assert report["bit_exact"]["samples"] == len(samples)
    assert sqnr(_unet(), result, samples) > SQNR
    moved = {(row["name"], row["op"]) for row in report["coverage"]["nodes_scalar"]}
    assert moved <= {("x", "permute_dims"), ("head", "permute_dims")}
