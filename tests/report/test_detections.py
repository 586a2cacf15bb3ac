"""Boxes of outputs in the report."""

from __future__ import annotations

import numpy as np

from hwptq.metrics import find
from hwptq.page.page import html_report
from hwptq.report.accuracy import load_metric
from hwptq.report.detections import detections, size_of
from hwptq.report.examples import Example, example_row, picture

from test_html_report import REPORT  # isort: skip


def outputs(shift: float = 0.0) -> list[np.ndarray]:
    boxes = np.array([[[1, 2, 3, 4], [5, 6, 7, 8], [0, 0, 9, 9]]], np.float32) + np.float32(shift)
    return [boxes, np.array([[0.5, 0.9, 0.1]], np.float32), np.array([[3, 4, 5]], np.float32)]


def test_the_best_come_first_and_weak_ones_stay_away() -> None:
    named = find("map")
    assert named
    assert named.boxes
    assert detections(named.boxes, outputs()) == [[4, 0.9, 5, 6, 7, 8], [3, 0.5, 1, 2, 3, 4]]


def test_what_makes_no_boxes_shows_none() -> None:
    assert detections(lambda found: found[:2], outputs()) is None
    assert detections(lambda found: [found[0][..., :3], *found[1:]], outputs()) is None


def test_an_image_has_a_size() -> None:
    assert size_of([np.zeros((1, 7)), np.zeros((1, 3, 8, 9))]) == [8, 9]
    assert size_of([np.zeros((1, 8, 9, 3))]) == [8, 9]
    assert size_of([np.zeros((1, 4, 8, 9))]) is None


def score(outputs: list[np.ndarray], labels: np.ndarray | None) -> float:
    return 0.0


def test_a_function_of_the_users_may_say_where_boxes_are() -> None:
    score.boxes = lambda raw: [raw[0] * 2, *raw[1:]]  # type: ignore[attr-defined]
    custom = load_metric(score).custom
    assert custom
    image = np.random.default_rng(0).random((1, 3, 16, 20), np.float32)
    example = Example({"x": image}, None, {"float32": outputs(), "emitted": outputs(0.25)})
    row = example_row(example, ["boxes", "scores", "classes"], custom.boxes)
    assert row["boxes"]["float32"][0] == [4, 0.9, 10, 12, 14, 16]
    assert row["boxes"]["emitted"][0] == [4, 0.9, 10.5, 12.5, 14.5, 16.5]
    assert row["size"] == [16, 20]
    page = html_report({**REPORT, "examples": [row]}, [picture(example)])
    assert page.count("<rect x=") == 4
    assert 'viewBox="0 0 20 16"' in page
