"""A transformer block, quantized as it comes: nothing is rounded between operators in float."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_models import expected, model, node, normal, save

import hwptq

WIDTH, TOKENS, HEADS = 32, 12, 2
SHAPE = (1, TOKENS, WIDTH)


def block(mask: float) -> onnx.ModelProto:
    """Norm, attention with an additive mask over the last tokens, residual, norm, two layers, residual, norm.

    What attention adds to the stream is an output too.
    """
    split = [1, TOKENS, HEADS, WIDTH // HEADS]
    nodes = [
        node("LayerNormalization", "x g0 b0", "n0", "norm0"),
        node("MatMul", "n0 wq", "q0", "query"),
        node("MatMul", "n0 wk", "k0", "key"),
        node("MatMul", "n0 wv", "v0", "value"),
        *(node("Reshape", f"{t}0 split", f"{t}1", f"{t}_split") for t in "qkv"),
        node("Transpose", "q1", "q", "q_heads", perm=[0, 2, 1, 3]),
        node("Transpose", "k1", "k", "k_heads", perm=[0, 2, 3, 1]),
        node("Transpose", "v1", "v", "v_heads", perm=[0, 2, 1, 3]),
        node("MatMul", "q k", "s0", "scores"),
        node("Mul", "s0 scale", "s1", "scaled"),
        node("Add", "s1 mask", "s2", "masked"),
        node("Softmax", "s2", "p", "probabilities", axis=-1),
        node("MatMul", "p v", "o0", "mixed"),
        node("Transpose", "o0", "o1", "tokens", perm=[0, 2, 1, 3]),
        node("Reshape", "o1 whole", "o2", "joined"),
        node("MatMul", "o2 wo", "o3", "projection"),
        node("Add", "o3 x", "r0", "residual0"),
        node("LayerNormalization", "r0 g1 b1", "n1", "norm1"),
        node("MatMul", "n1 w1", "h0", "up"),
        node("Relu", "h0", "h1", "relu"),
        node("MatMul", "h1 w2", "h2", "down"),
        node("Add", "h2 r0", "r1", "residual1"),
        node("LayerNormalization", "r1 g2 b2", "y", "norm2"),
    ]
    hidden = np.where(np.arange(TOKENS) < TOKENS - 3, 0, mask).astype(np.float32)
    constants: dict[str, Any] = {
        **{f"g{i}": normal(i, WIDTH, spread=0.2) + 1 for i in range(3)},
        **{f"b{i}": normal(3 + i, WIDTH, spread=0.2) for i in range(3)},
        **{f"w{n}": normal(ord(n), WIDTH, WIDTH, spread=0.2) for n in "qkvo"},
        "w1": normal(20, WIDTH, 2 * WIDTH, spread=0.2), "w2": normal(21, 2 * WIDTH, WIDTH, spread=0.2),
        "scale": np.float32((WIDTH // HEADS) ** -0.5), "mask": hidden, "split": np.array(split),
        "whole": np.array(SHAPE),
    }  # fmt: skip
    return model(nodes, {"x": SHAPE}, constants, outputs=["y", "o3"])


@pytest.mark.parametrize("mask", [-10_000.0, float(np.finfo(np.float32).min)])
def test_masks_and_residuals_keep_their_resolution(mask: float, tmp_path: Path, runnable: Any) -> None:
    proto, rng = block(mask), np.random.default_rng(0)
    wide = np.where(np.arange(WIDTH) == 5, 60, 0)  # a channel as outliers are
    data = [{"x": (rng.normal(size=SHAPE) + wide).astype(np.float32)} for _ in range(24)]
    result = hwptq.compile(save(proto, tmp_path), runnable("x86-64-avx2"), data, output=tmp_path / "out")
    for exact, found in zip(expected(proto, data[0]), result.run(data[0]).values(), strict=True):
        assert 10 * np.log10((exact**2).sum() / ((exact - found) ** 2).sum()) > 25
    cover = result.report["coverage"]
    assert cover["macs_quantized"] == cover["macs_total"]
    assert result.report["bit_exact"]["mismatches"] == 0
    assert not cover["nodes_float"]


def test_an_input_that_passes_through_comes_back_as_it_went_in(tmp_path: Path, runnable: Any) -> None:
    nodes = [
        node("Identity", "x", "same", "same"),
        node("Conv", "x w", "y", "conv", pads=[1] * 4),
    ]
    proto = model(nodes, {"x": (1, 3, 6, 6)}, {"w": normal(0, 4, 3, 3, 3)}, outputs=["same", "y"])
    data = [{"x": normal(i, 1, 3, 6, 6)} for i in range(4)]
    result = hwptq.compile(save(proto, tmp_path), runnable("x86-64-avx2"), data, output=tmp_path / "out")
    np.testing.assert_array_equal(result.run(data[0])["same"], data[0]["x"])
