"""A planted cause of loss is found, and its remedy comes first and restores what was lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ailing import constants, diagnosed, images

from hwptq.diagnosis.diagnosis import Diagnosis
from hwptq.diagnosis.places import Part
from hwptq.diagnosis.treatment import Treated
from hwptq.errors import InputError

ENOUGH = 0.9  # of the loss


def main_part(found: Diagnosis) -> Part:
    return max(found.parts, key=lambda loss: loss.alone.noise).part


def measured(treated: Treated) -> float:
    """What a remedy restored; it must have been measured, and as predicted where it was."""
    assert treated.measured is not None
    assert treated.restored is not None
    if treated.predicted is not None:
        ratio = treated.measured.noise / treated.predicted.noise
        assert 0.5 < ratio < 2, "the prediction misleads"
    return treated.restored


def test_channels_of_unlike_ranges(tmp_path: Path):
    """With one scale for all channels, some of whose weights are a thousand times others'."""
    weights, factors = constants(), np.float32([100, 0.1, 1, 30, 0.3, 10, 3, 0.5])
    weights["w2"] *= factors[:, None, None, None]
    weights["b2"] *= factors
    weights["w3"] /= factors[None, :, None, None]
    found = diagnosed(tmp_path, weights, weight_granularity="tensor")
    assert found.losses[0].place.name == "depthwise"
    assert found.remedies[0].arguments == ("--set", "equalize=on")
    assert measured(found.remedies[0]) >= ENOUGH


def test_an_outlier_in_the_calibration_data(tmp_path: Path):
    data = images(0, 16)
    data[0] *= 40
    found = diagnosed(tmp_path, constants(), data)
    assert main_part(found) == Part.ACTIVATIONS
    assert found.remedies[0].arguments[0] == "--calibration-method"
    assert measured(found.remedies[0]) >= ENOUGH


def test_calibration_data_that_is_too_small(tmp_path: Path):
    """The remedy is no option: it says what to do, and what that will bring."""
    found = diagnosed(tmp_path, constants(), images(0, 16, spread=0.3))
    assert main_part(found) == Part.RANGES
    first = found.remedies[0]
    assert first.arguments == ()
    assert "give more of it" in first.remedy.why
    assert first.restored is not None
    assert first.restored >= ENOUGH


def test_weights_of_few_bits(tmp_path: Path):
    found = diagnosed(tmp_path, constants(), precision="w4a8", lower_ends=True)
    assert main_part(found) == Part.WEIGHTS
    assert found.losses[0].place.name == "classes"
    assert found.losses[0].parts[Part.WEIGHTS] > 10 * found.losses[0].parts[Part.ACTIVATIONS]
    assert found.remedies[0].arguments == ("--exclude", "^(classes|pointwise)$")
    assert measured(found.remedies[0]) >= ENOUGH


def test_names_join_the_users_pattern(tmp_path: Path):
    """What is pasted stands for the option as a whole."""
    found = diagnosed(tmp_path, constants(), precision="w4a8", lower_ends=True, exclude="depthwise")
    patterns = [t.arguments[1] for t in found.remedies if t.arguments[:1] == ("--exclude",)]
    assert patterns
    assert all(p.startswith("depthwise|^") for p in patterns)


def test_a_budget_is_held_by_every_remedy(tmp_path: Path):
    found = diagnosed(tmp_path, constants(), budget="weights=0.91x")
    assert main_part(found) == Part.WEIGHTS
    assert any(loss.place.layer and loss.place.layer.pair[1] == "int4" for loss in found.losses)
    assert not any("--precision" in treated.arguments for treated in found.remedies)


def test_nothing_to_mend(tmp_path: Path):
    """What a network that quantizes well loses is shown, and that no change of the recipe would help much."""
    found = diagnosed(tmp_path, constants(), recipe="default")
    assert found.found.sqnr_db is not None
    assert found.found.sqnr_db > 40
    assert found.metric == "sqnr_db"
    assert found.best is None


def test_a_quantized_model_is_refused(tmp_path: Path):
    from ailing import NODES, SIZE
    from onnx_models import model, node, save

    import hwptq

    scale = {"s": np.float32(0.05), "z": np.int8(0)}
    steps = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d")]
    first = node("Conv", "d w1 b1", "a", "first", pads=[1, 1, 1, 1])
    proto = model([*steps, first, *NODES[1:]], {"x": SIZE}, constants() | scale)
    with pytest.raises(InputError, match="quantized already"):
        hwptq.diagnose(save(proto, tmp_path), "x86-64-vnni", {"x": images(0, 2)})
