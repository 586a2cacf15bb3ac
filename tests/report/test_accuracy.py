"""Score: the accuracy object of a report."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import normal

from hwptq.errors import InputError
from hwptq.report.accuracy import Score, Sqnr, load_metric


def test_each_output_has_an_sqnr_of_its_own_and_all_have_one_together():
    score = Score()
    pairs = {0: Sqnr(), 1: Sqnr(), "all": Sqnr()}
    for seed in range(3):
        exact = [normal(seed, 1, 4, 2), normal(seed + 10, 1, 5)]
        found = [exact[0] + np.float32(0.1), exact[1] * np.float32(0.5)]
        score.add(None, {"float32": exact, "reference": found, "emitted": exact})
        for i in (0, 1):
            pairs[i].add(exact[i], found[i])
            pairs["all"].add(exact[i], found[i])
    report = score.report()
    assert report["metric"] == "sqnr_db"
    assert report["reference"] == pytest.approx(pairs["all"].db, abs=0.011)
    assert [o["sqnr_db"] for o in report["outputs"]] == [
        {"reference": pairs[i].db, "emitted": None} for i in (0, 1)
    ]
    assert report["sqnr_db"]["emitted"] is None
    assert report["cosine"]["emitted"] == 1


def half(outputs, labels):
    return 0.5


def add(score, label, shape=(1, 4)):
    exact = [normal(0, *shape)]
    score.add(label, {"float32": exact, "emitted": exact})


def test_a_function_is_a_metric_under_its_name():
    score = load_metric(half)
    add(score, None)
    report = score.report()
    named = {"metric": f"{__name__}:half", "samples": 1, "float32": 0.5, "emitted": 0.5}
    assert {key: report[key] for key in named} == named


def test_beside_any_metric_stands_how_near_outputs_are_to_float32():
    score, exact = load_metric(half), normal(0, 1, 4)
    score.add(None, {"float32": [exact], "emitted": [exact * np.float32(1.125)]})
    (output,) = score.report()["outputs"]
    assert output["sqnr_db"]["emitted"] == pytest.approx(20 * np.log10(8), abs=0.005)


@pytest.mark.parametrize(
    ("result", "said"),
    [("many", "could not convert"), (float("nan"), "gives nan for float32"), ([1, 2], "TypeError")],
)
def test_a_metric_gives_a_number(result, said):
    score = load_metric(lambda outputs, labels: result)
    add(score, 1)
    with pytest.raises(InputError, match=said):
        score.report()


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("math:pi", "is no function but of type float"),
        ("math:tau2", "has no attribute"),
        ("math", "give top1"),
    ],
)
def test_a_metric_that_is_none(metric, said):
    with pytest.raises(InputError, match=said):
        load_metric(metric)


@pytest.mark.parametrize(
    ("label", "shape", "said"),
    [
        (None, (1, 4), "has no label; give the number of its class in y"),
        (0.5, (1, 4), "has the label 0.5"),
        (1, (1, 4, 2), r"the first output is \[1, 4, 2\]"),
    ],
)
def test_top1_is_not_silently_replaced_where_it_is_asked_for(label, shape, said):
    with pytest.raises(InputError, match=said):
        add(load_metric("top1"), label, shape)
    score = load_metric(None)
    add(score, label, shape)
    assert score.report()["metric"] == "sqnr_db"


def test_one_score_is_no_choice_among_classes():
    """The output of a sigmoid is always its own greatest value: top-1 would be the share of label 0."""
    score = load_metric(None)
    add(score, 0, (1, 1))
    assert (score.report()["metric"], score.unread) == (
        "sqnr_db",
        "the first output is [1, 1], not [1, classes]",
    )
    with pytest.raises(InputError, match=r"the first output is \[1, 1\], not"):
        add(load_metric("top1"), 0, (1, 1))


@pytest.mark.parametrize("label", [4, 100, -1])
@pytest.mark.parametrize("metric", [None, "top1"])
def test_a_label_that_is_no_class(label, metric):
    with pytest.raises(InputError, match=f"the label {label}, but the first output has 4 classes, 0 … 3"):
        add(load_metric(metric), label, (1, 4))


def test_labels_of_other_metrics_are_theirs():
    for metric in ("sqnr", lambda outputs, labels: 1.0):
        score = load_metric(metric)
        add(score, 100, (1, 4))
        assert score.unread == ""
