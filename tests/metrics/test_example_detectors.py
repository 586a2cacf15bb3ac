"""examples/detection/detectors.py finds boxes again that were written in each detector's own way."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SIZE, CLASSES = 64, 4
#: class, left, top, right, bottom of two objects; their centres lie on anchors of the strides 8 and 32.
TRUTH = np.array([[1, 4.0, 6.0, 20.0, 28.0], [2, 8.0, 10.0, 56.0, 48.0]])


@pytest.fixture(scope="module")
def detectors() -> Any:
    file = Path(__file__).parents[2] / "examples" / "detection" / "detectors.py"
    spec = importlib.util.spec_from_file_location("detectors", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors() -> tuple[np.ndarray, np.ndarray]:
    """Places [K, 2] of the corners of cells in strides, and strides [K, 1]."""
    places, strides = [], []
    for stride in (8, 16, 32):
        n = SIZE // stride
        y, x = np.divmod(np.arange(n * n), n)
        places.append(np.stack([x, y], axis=-1))
        strides.append(np.full((n * n, 1), stride))
    return np.concatenate(places), np.concatenate(strides)


def spread(scores: float = 0.9) -> tuple[list[int], np.ndarray]:
    """The anchors that hold the objects, and scores [K, C]."""
    at, found = [9, 64 + 16], np.full((64 + 16 + 4, CLASSES), 0.001)
    for i, row in zip(at, TRUTH, strict=True):
        found[i, int(row[0])] = scores
    return at, found


def centres() -> tuple[np.ndarray, np.ndarray]:
    low, high = TRUTH[:, 1:3], TRUTH[:, 3:]
    return (low + high) / 2, high - low


def yolox() -> list[np.ndarray]:
    (at, scores), (places, strides) = spread(), anchors()
    centre, size = centres()
    raw = np.zeros((len(scores), 5 + CLASSES))
    raw[:, 4], raw[:, 5:] = 1, scores
    raw[at, :2] = centre / strides[at] - places[at]
    raw[at, 2:4] = np.log(size / strides[at])
    return [raw[None].astype(np.float32)]


def yolov8() -> list[np.ndarray]:
    at, scores = spread()
    raw = np.zeros((len(scores), 4 + CLASSES))
    raw[:, 4:] = scores
    raw[at, :4] = np.concatenate(centres(), axis=1)
    return [raw.T[None].astype(np.float32)]


def ssd() -> list[np.ndarray]:
    at, scores = spread()
    boxes = np.zeros((len(scores), 4))
    boxes[at] = TRUTH[:, 1:]
    with_background = np.concatenate([1 - scores.max(axis=1, keepdims=True), scores], axis=1)
    return [with_background[None].astype(np.float32), boxes[None].astype(np.float32)]


def nanodet() -> list[np.ndarray]:
    """Sides of whole strides and halves: two neighbouring bins share the weight."""
    (at, scores), (places, strides) = spread(), anchors()
    bins = np.full((len(scores), 4, 8), -30.0)
    for i, row in zip(at, TRUTH, strict=True):
        centre = places[i] * strides[i] + (strides[i] - 1) / 2
        reach = np.concatenate([centre - row[1:3], row[3:] - centre]) / strides[i]
        for side, length in enumerate(reach):
            whole = int(length)
            bins[i, side, whole] = np.log(max(1 - (length - whole), 1e-9))
            bins[i, side, whole + 1] = np.log(max(length - whole, 1e-9))
    outputs, first = [], 0
    for count in (64, 16, 4):
        part = slice(first, first + count)
        outputs += [bins[part].reshape(1, count, 32), scores[None, part]]
        first += count
    return [a.astype(np.float32) for a in outputs]


@pytest.mark.parametrize("outputs", [yolox, yolov8, ssd, nanodet], ids=lambda f: f.__name__)
def test_boxes_come_back(detectors: Any, outputs: Any) -> None:
    metric = getattr(detectors, outputs.__name__)
    boxes, scores, classes = metric.boxes(outputs())
    order = np.argsort(classes[0][:2])
    np.testing.assert_allclose(boxes[0][:2][order], TRUTH[:, 1:], atol=0.1)
    np.testing.assert_array_equal(classes[0][:2][order], TRUTH[:, 0])
    assert (scores[0][:2] > 0.8).all()
    assert (scores[0][2:] == 0).all()
    assert metric(outputs(), TRUTH[None]) == 100
    assert metric(outputs(), TRUTH[None] + np.array([0, 40, 0, 40, 0])) == 0


def test_one_of_two_boxes_on_each_other_stays(detectors: Any) -> None:
    raw = yolov8()[0]
    raw[0, :4, 10], raw[0, 4:, 10] = raw[0, :4, 9] + 1, raw[0, 4:, 9] * np.float32(0.5)
    _, scores, _ = detectors.yolov8_boxes([raw])
    assert (scores[0] > 0).sum() == 2
