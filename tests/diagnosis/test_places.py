"""Switching rounding on and off: nothing is float32, everything is the QDQ module, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ailing import NODES, SIZE, constants, images
from onnx_models import model, save

import hwptq
from hwptq.data.dataset import from_batches
from hwptq.diagnosis.places import Part, places
from hwptq.diagnosis.simulation import Simulation
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.options import options_of
from hwptq.pipeline.stages import quantize
from hwptq.pipeline.step import Job

WORDS: list[dict[str, Any]] = [
    {},
    {"recipe": "fast", "weight_granularity": "tensor"},
    {"keep_float": "depthwise|pool"},
]


@pytest.mark.parametrize("words", WORDS, ids=str)
def test_all_and_nothing(words: dict[str, Any], tmp_path: Path):
    imported = import_onnx(save(model(NODES, {"x": SIZE}, constants()), tmp_path), {})
    data = from_batches({"x": images(0, 4)}, imported.inputs)
    job = Job(hwptq.load_target("x86-64-vnni"), data, options_of(None, **words))
    quantized = quantize(imported.module, job)
    found = places(quantized.float32, quantized.qdq)
    simulation = Simulation(quantized.float32, found)
    inputs = {"x": images(5, 1)}
    exact, rounded = (Interpreter(mod).run(inputs) for mod in (quantized.float32, quantized.qdq))
    np.testing.assert_array_equal(simulation.rounded(inputs, Part(0)), exact)
    np.testing.assert_array_equal(simulation.rounded(inputs, Part.ALL, found), exact)
    np.testing.assert_array_equal(simulation.rounded(inputs, Part.ALL), rounded)
    assert not np.array_equal(exact, rounded)


def test_every_rounding_has_one_place(tmp_path: Path):
    """Flatten moves what the pooling before it has rounded, so it adds no error; each layer has weights."""
    imported = import_onnx(save(model(NODES, {"x": SIZE}, constants()), tmp_path), {})
    data = from_batches({"x": images(0, 4)}, imported.inputs)
    quantized = quantize(imported.module, Job(hwptq.load_target("x86-64-vnni"), data))
    found = {p.name: p for p in places(quantized.float32, quantized.qdq)}
    assert list(found) == ["x", "first", "depthwise", "pointwise", "pool", "classes"]
    layers = {name for name, place in found.items() if place.layer}
    assert layers == {"first", "depthwise", "pointwise", "classes"}


def test_parts_of_a_rounding_add_up(tmp_path: Path):
    """The errors of ranges and of rounding inside them are those of quantize and dequantize."""
    imported = import_onnx(save(model(NODES, {"x": SIZE}, constants()), tmp_path), {})
    data = from_batches({"x": images(0, 4)}, imported.inputs)
    quantized = quantize(imported.module, Job(hwptq.load_target("x86-64-vnni"), data))
    rounding = next(p.rounding for p in places(quantized.float32, quantized.qdq) if p.name == "x")
    assert rounding is not None
    x = images(7, 2, spread=4.0)
    errors = [rounding(x, part) - x for part in (Part.RANGES, Part.ACTIVATIONS)]
    np.testing.assert_allclose(sum(errors), rounding(x, Part.RANGES | Part.ACTIVATIONS) - x, atol=1e-5)
    assert np.abs(errors[1]).max() <= rounding.scale / 2 * 1.001
    assert np.abs(errors[0]).max() > rounding.scale
