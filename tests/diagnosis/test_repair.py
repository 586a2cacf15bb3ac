"""Remedies are applied until the loss is small enough, and no more of them than that takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ailing import NODES, SIZE, constants, images
from onnx_models import model, save

import hwptq
from hwptq.errors import AccuracyError, InputError
from hwptq.options import options_of

WORDS = {"precision": "w4a8", "lower_ends": True, "recipe": "fast"}


def closeness(outputs: list[np.ndarray], labels: np.ndarray | None) -> float:
    """Points: minus the distance from the outputs that float32 has, which are the labels."""
    assert labels is not None
    return -float(np.linalg.norm(outputs[0] - labels) / np.linalg.norm(labels)) * 100


def data(path: Path) -> dict[str, np.ndarray]:
    x = images(99, 16)
    labels = np.concatenate([hwptq.Interpreter(_float(path)).run({"x": i[None]})[0] for i in x])
    return {"x": x, "y": labels}


def _float(path: Path) -> object:
    from hwptq.frontends.onnx.importer import import_onnx

    return import_onnx(path, {}).module


def repaired(folder: Path, most: float) -> hwptq.Repair:
    path = save(model(NODES, {"x": SIZE}, constants()), folder)
    return hwptq.repair(
        path, "x86-64-vnni", {"x": images(0, 16)}, data(path), metric=closeness, max_drop=most, **WORDS
    )


def test_nothing_to_do(tmp_path: Path):
    found = repaired(tmp_path, most=50.0)
    assert found.drop <= 50.0
    assert found.applied(options_of(None, **WORDS)) == options_of(None, **WORDS)


def test_the_cheapest_that_is_enough(tmp_path: Path):
    found = repaired(tmp_path, most=4.0)
    (diagnosis,) = found.diagnoses
    assert diagnosis.best is not None
    assert diagnosis.found.metric is not None
    assert diagnosis.best - diagnosis.found.metric > 4.0
    assert found.drop <= 4.0
    chosen = next(t for t in diagnosis.remedies if t.remedy.change == found.change)
    enough = [t for t in diagnosis.remedies if t.measured and diagnosis.best - t.measured.metric <= 4.0]
    assert chosen.price == min(t.price for t in enough)


def test_not_to_be_had(tmp_path: Path):
    with pytest.raises(AccuracyError, match=r"no remedy .* 0\.0001 are allowed"):
        repaired(tmp_path, most=0.0001)


def test_points_need_a_metric(tmp_path: Path):
    path = save(model(NODES, {"x": SIZE}, constants()), tmp_path)
    with pytest.raises(InputError, match="--metric"):
        hwptq.repair(path, "x86-64-vnni", {"x": images(0, 4)}, max_drop=1.0, **WORDS)
