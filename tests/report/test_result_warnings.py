"""Results that are likely to be useless do not pass in silence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx_models import normal

from hwptq.notices import Warning, caution
from hwptq.report import verify
from hwptq.report.accuracy import Score, channel_axis
from hwptq.report.evidence import Evidence
from hwptq.report.result_warnings import prompt_warnings, result_warnings
from hwptq.targets import load_target

ALL = {"macs_total": 100, "macs_quantized": 100}


def scored(exact: np.ndarray, found: np.ndarray, label: Any = None, samples: int = 1, **words: Any) -> Score:
    """The score of `samples` that are alike."""
    score = Score(**words)
    for _ in range(samples):
        score.add(label, {"float32": [exact], "reference": [found], "emitted": [found]})
    return score


def warned(score: Score, coverage: dict[str, int] = ALL, own: bool = False) -> list[tuple[str, str, bool]]:
    found = result_warnings(score, ["y"], coverage, own)
    return [(w.kind, w.where, w.serious) for w in found]


def test_a_good_result_is_no_reason_to_warn():
    x = normal(0, 1, 4, 5, 5)
    assert warned(scored(x, x + np.float32(1e-3))) == []


@pytest.mark.parametrize(("error", "expected"), [(0.17, []), (0.19, [("sqnr", "y", True)])])
def test_an_output_below_15_db(error: float, expected: list[Any]):
    x = normal(0, 1, 8)
    assert warned(scored(x, x * np.float32(1 - error))) == expected


def test_a_channel_that_is_lost_among_great_ones():
    """Boxes of hundreds of pixels and a score of at most 1, in steps of 3."""
    x = normal(0, 1, 5, 6, 6) * np.float32([[[[400]], [[400]], [[300]], [[300]], [[0.3]]]]).reshape(
        1, 5, 1, 1
    )
    score = scored(x, np.rint(x / 3).astype(np.float32) * 3)
    assert score.sqnr["emitted"][0].db > 30
    [warning] = result_warnings(score, ["y"], ALL, False)
    assert (warning.kind, warning.where, warning.serious) == ("sqnr", "y", True)
    assert "1 of 5 channels (axis 1) have an SQNR below 15 dB, channel 4 0.0 dB" in warning.text


def test_a_channel_of_zeros_is_not_missed():
    x = normal(0, 1, 3, 4, 4)
    x[:, 1] = 0
    found = x + np.float32(1e-3)
    assert warned(scored(x, found)) == []


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((1, 10), None), ((7, 6), 1), ((1, 84, 8400), 1), ((1, 8400, 85), 2), ((1, 3, 4, 5), 1), ((), None)],
)
def test_the_axis_of_channels(shape: tuple[int, ...], axis: int | None):
    assert channel_axis(shape) == axis


def test_outputs_of_a_metric_of_the_users_are_looked_at_too():
    x = normal(0, 1, 8)
    assert warned(scored(x, -x, custom=lambda outputs, labels: 1.0)) == [("sqnr", "y", True)]


@pytest.mark.parametrize(("label", "expected"), [(3, []), (2, [("chance", "", True)])])
def test_float32_that_only_guesses(label: int, expected: list[Any]):
    x = np.eye(10, dtype=np.float32)[3:4]
    assert warned(scored(x, x, label, 20)) == expected
    assert warned(scored(x, x, label, 5)) == []  # too few to tell


@pytest.mark.parametrize(
    ("macs", "expected"), [(60, []), (40, [("coverage", "", False)]), (0, [("coverage", "", True)])]
)
def test_little_is_quantized(macs: int, expected: list[Any]):
    x = normal(0, 1, 8)
    assert warned(scored(x, x), ALL | {"macs_quantized": macs}) == expected


def test_a_score_of_the_calibration_data():
    x = np.eye(10, dtype=np.float32)[3:4]
    assert warned(scored(x, x, 3), own=True) == [("same-data", "", False)]
    assert warned(scored(x, x), own=True) == []  # no score, SQNR only


def test_the_caution_of_a_report_holds_serious_warnings():
    mild, grave = Warning("few-samples", "", "few"), Warning("sqnr", "y", "noise", serious=True)
    assert caution("", [mild]) is None
    assert caution("never run", [mild, grave]) == "never run; y: noise"


@pytest.mark.parametrize(("prompts", "kinds"), [(False, ["prompt"]), (True, [])])
def test_a_prompt_that_nothing_compares(prompts: bool, kinds: list[str], monkeypatch: pytest.MonkeyPatch):
    board: Any = SimpleNamespace(prompts=prompts, description="a board", close=lambda: None)
    program: Any = SimpleNamespace(why_none="", prompt=object(), inputs=())
    monkeypatch.setattr(verify, "_executor", lambda *_: board)
    monkeypatch.setattr(verify, "check_prompt", lambda *_: iter(()))
    evidence, target = Evidence("", Score()), load_target("x86-64-avx2")
    verify._verify_prompt(evidence, program, target, "board")
    assert [w.kind for w in prompt_warnings(evidence.steps_alone)] == kinds


@pytest.mark.parametrize(
    ("label", "kinds"),
    [(3, []), (None, []), (3.5, ["labels"]), (np.eye(10)[3], ["labels"])],
)
def test_labels_that_the_score_does_not_read(label: Any, kinds: list[str]):
    x = np.eye(10, dtype=np.float32)[3:4]
    assert [w.kind for w in result_warnings(scored(x, x, label, 20), ["y"], ALL, False)] == kinds
    assert warned(scored(x, x, label, 20, custom=lambda outputs, labels: 1.0)) == []
