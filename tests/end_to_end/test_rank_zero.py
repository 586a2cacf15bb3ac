"""Inputs, outputs and tensors between them that have no axes, from data files to emitted code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import expected, model, node, normal, save

import hwptq


def scalars() -> onnx.ModelProto:
    """A gain is an input, the mean of what a layer gives an output, and a factor for the rest."""
    nodes = [
        node("Conv", "x w", "a", "conv", pads=[1, 1, 1, 1]),
        node("Mul", "a gain", "b", "gain"),
        node("ReduceMean", "b", "m", "mean", keepdims=0),
        node("Sigmoid", "m", "s", "sigmoid"),
        node("Mul", "b s", "y", "weighted"),
    ]
    shapes: dict[str, list[int]] = {"x": [1, 3, 5, 7], "gain": []}
    return model(nodes, shapes, {"w": normal(0, 4, 3, 3, 3, spread=0.3)}, ["m", "y"])


@pytest.mark.parametrize("target", ["arm-cortex-a", "x86-64-avx2"])
def test_bit_exact_and_accurate(target: str, runnable: Callable[[str], str], tmp_path: Path):
    data = {"x": normal(1, 16, 3, 5, 7), "gain": np.linspace(0.5, 2, 16, dtype=np.float32)}
    np.savez(tmp_path / "data.npz", **data)
    path = save(scalars(), tmp_path)
    result = hwptq.compile(path, runnable(target), tmp_path / "data.npz", output=tmp_path / "out")
    exact = result.report["bit_exact"]
    assert (exact["mismatches"], exact["samples"]) == (0, 16)
    assert exact["values"] >= 16 * (1 + 4 * 5 * 7)
    golden = np.load(result.folder / "golden.npz")
    count = len(golden["gain"])
    assert (golden["gain"].shape, golden["output_0"].shape) == ((count,), (count,))
    for i in range(count):
        sample = {"x": data["x"][i : i + 1], "gain": data["gain"][i]}
        outputs = result.run(sample)
        assert outputs["m"] == golden["output_0"][i]
        for found, wanted in zip(outputs.values(), expected(scalars(), sample), strict=True):
            assert found.shape == wanted.shape
            np.testing.assert_allclose(found, wanted, atol=0.1)


def test_integers_without_axes_that_nothing_needs(runnable: Callable[[str], str], tmp_path: Path):
    """As the sample rate of speech models."""
    proto = model([node("MatMul", "x w", "y")], {"x": ["N", 8]}, {"w": normal(0, 8, 4)})
    proto.graph.input.append(onnx.helper.make_tensor_value_info("rate", onnx.TensorProto.INT64, []))
    data = [{"x": normal(1, 16, 8), "rate": np.full(16, 16000)}]
    result = hwptq.compile(save(proto, tmp_path), runnable("x86-64-avx2"), data, output=tmp_path / "out")
    assert result.report["bit_exact"]["mismatches"] == 0
    assert result.run({"x": data[0]["x"][:1], "rate": np.int64(16000)})["y"].shape == (1, 4)
