"""QuantizeSummands: a residual sum of which one operand has no Q, as some tools write it, is in integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import model, node, normal, save

from hwptq import passes
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.options import Options
from hwptq.pipeline.stages import integers, normalize
from hwptq.pipeline.step import Job
from hwptq.report.coverage import float_nodes
from hwptq.targets import load_target

_STEP = 2.0**-5  # of what the sum gives


def _boundary(tensor: str, name: str, scale: str) -> list[onnx.NodeProto]:
    return [
        node("QuantizeLinear", f"{tensor} {scale} zero", f"{name}_q"),
        node("DequantizeLinear", f"{name}_q {scale} zero", name),
    ]


def _residual(operands: str, gain: float) -> onnx.ModelProto:
    """A convolution that is added as it is; gain: of its weights."""
    nodes = [
        *_boundary("x", "a", "wide"),
        node("DequantizeLinear", "w fine zero", "v"),
        node("Conv", "a v b", "e", "layer", pads=[1] * 4),
        node("Add", operands, "f", "sum"),
        node("Relu", "f", "g", "clamp"),
        *_boundary("g", "y", "wide"),
    ]
    codes = np.random.default_rng(0).integers(-127, 128, (4, 4, 3, 3)).astype(np.int8)
    scales = {"wide": np.float32(_STEP), "fine": np.float32(0.002 * gain)}
    constants = {"w": codes, "b": normal(3, 4), "zero": np.int8(0), **scales}
    return model(nodes, {"x": [1, 4, 6, 6]}, constants, opset=19)


@pytest.mark.parametrize("gain", [1.0, 20.0])
@pytest.mark.parametrize("operands", ["a e", "e a"])
def test_what_counts_is_not_clipped(tmp_path: Path, operands: str, gain: float) -> None:
    """Also where most sums lie beyond the range of their Q."""
    found = import_onnx(save(_residual(operands, gain), tmp_path))
    job = Job(load_target("x86-64-avx2"), None, Options())
    lowered = integers(normalize(found.module, job), job)
    assert float_nodes(lowered) == []
    for seed in range(3):
        x = {"x": normal(seed, 1, 4, 6, 6, spread=2.0)}
        (wanted,), (value,) = (Interpreter(m).run(x) for m in (found.module, lowered))
        assert np.abs(value - wanted).max() <= _STEP
        assert np.mean(value != wanted) < 0.02
        assert np.mean(wanted == 127 * _STEP) > 0.1 or gain == 1.0


def test_a_target_without_wide_integers_leaves_it_in_float(tmp_path: Path) -> None:
    found = import_onnx(save(_residual("a e", 1.0), tmp_path))
    job = Job(load_target("nvidia-hopper-fp8"), None, Options())
    lowered = integers(normalize(found.module, job), job)
    assert "layer" in [n["name"] for n in float_nodes(lowered)]


def test_once_is_enough(tmp_path: Path) -> None:
    found = import_onnx(save(_residual("a e", 1.0), tmp_path))
    job = Job(load_target("x86-64-avx2"), None, Options())
    once = normalize(found.module, job).float32
    assert passes.QuantizeSummands(job.target)(once).same_as(once)
