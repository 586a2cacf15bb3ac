"""Metrics by name: values known by hand or from other libraries, and what is said where data doesn't fit."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from hwptq import metrics
from hwptq.consistency import measures
from hwptq.errors import InputError
from hwptq.report.accuracy import check_most, drop, load_metric


def value(name, outputs, labels, exact=None):
    return metrics.find(name).compute(outputs, labels, outputs if exact is None else exact)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 9))
def test_top5_counts_ranks_below_five(seed, samples, classes):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, 4, (samples, classes)), rng.integers(0, classes, samples)
    ranks = [
        sum((s > row[label]) or (s == row[label] and c < label) for c, s in enumerate(row))
        for row, label in zip(scores, labels, strict=True)
    ]
    assert value("top5", [scores], labels) == pytest.approx(100 * np.mean(np.array(ranks) < 5))


def test_miou_by_hand():
    labels = np.array([[[0, 0, 1, 255]]])
    found = np.array([[[0, 1, 1, 0]]])
    assert value("miou", [found], labels) == pytest.approx(50)  # 1/2 and 1/2; the void pixel counts for none
    scores = np.moveaxis(np.eye(2)[found], -1, 1)
    assert value("miou", [scores], labels) == pytest.approx(50)


def test_perplexity_of_even_logits_is_the_vocabulary():
    labels = np.array([[1, 2, -100]])
    assert value("perplexity", [np.full((1, 3, 7), 900.0)], labels) == pytest.approx(7)
    sure = np.eye(7)[[[1, 2, 0]]] * 1000
    assert value("perplexity", [sure], labels) == pytest.approx(1)


@given(st.integers(0, 2**32 - 1), st.integers(3, 20))
def test_spearman_is_that_of_scipy(seed, samples):
    rng = np.random.default_rng(seed)
    found, labels = rng.integers(0, 5, samples) + 0.0, rng.integers(0, 5, samples)
    if found.std() and labels.std():
        expected = 100 * spearmanr(found, labels).statistic
        assert value("spearman", [found[:, None]], labels) == pytest.approx(expected)


def test_spearman_of_embeddings_goes_by_their_cosine():
    a = np.array([[1.0, 0], [1, 0], [1, 0]])
    b = np.array([[0.0, 9], [1, 1], [0.1, 0]])
    assert value("spearman", [a, b], np.array([0.1, 0.5, 0.6])) == pytest.approx(100)


def test_cosine_is_the_least_of_the_outputs():
    x, y = np.array([[1.0, 0]]), np.array([[0.0, 2]])
    assert value("cosine", [x, y], None, [x, y]) == 1
    assert value("cosine", [x, x], None, [x, y]) == 0


def boxes(rng, *shape):
    low = rng.integers(0, 6, (*shape, 2))
    return np.concatenate([low, low + rng.integers(1, 6, (*shape, 2))], axis=-1).astype(np.float32)


def detections(seed, images=4, found=9, true=5, classes=3):
    rng = np.random.default_rng(seed)
    kinds = rng.integers(-1, classes, (images, true, 1))
    kinds[0, 0] = 0
    labels = np.concatenate([kinds, boxes(rng, images, true)], axis=-1)
    ranks = rng.permutation(images * found).reshape(
        images, found
    )  # of equal scores the order is the library's
    scores = (ranks / ranks.size).astype(np.float32)
    # one in two detections lies on a true box
    places = np.where(
        rng.random((images, found, 1)) < 0.5,
        labels[:, rng.integers(0, true, found), 1:],
        boxes(rng, images, found),
    )
    return [places, scores, rng.integers(0, classes, (images, found))], labels


def by_pycocotools(outputs, labels):
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")

    def sized(box):
        return [*map(float, box[:2]), *map(float, box[2:] - box[:2])]

    rows = [(i, row) for i, rows in enumerate(labels) for row in rows if row[0] >= 0]
    kinds = sorted({int(row[0]) for _, row in rows})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = {
            "info": {}, "images": [{"id": i} for i in range(len(labels))],
            "categories": [{"id": k, "name": str(k)} for k in kinds],
            "annotations": [
                {"id": n + 1, "image_id": i, "category_id": int(row[0]), "bbox": sized(row[1:]),
                 "area": float(np.prod(row[3:] - row[1:3])), "iscrowd": 0}
                for n, (i, row) in enumerate(rows)
            ],
        }  # fmt: skip
        truth.createIndex()
        found = [
            {"image_id": i, "category_id": int(k), "bbox": sized(b), "score": float(s)}
            for i, image in enumerate(zip(*outputs, strict=True))
            for b, s, k in zip(*image, strict=True)
            if s > 0 and k in kinds
        ]
        run = evaluation.COCOeval(truth, truth.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return 100 * run.stats[0]


@pytest.mark.parametrize("seed", range(12))
def test_map_is_that_of_pycocotools(seed):
    outputs, labels = detections(seed)
    assert value("map", outputs, labels) == pytest.approx(by_pycocotools(outputs, labels), abs=1e-6)


def test_map_by_hand():
    """Two boxes, the better detection right at every overlap, the second wrong: 51 of 101 recalls."""
    labels = np.array([[[0, 0, 0, 10, 10], [0, 20, 20, 30, 30]]], float)
    found = np.array([[[0, 0, 10, 10], [40, 40, 50, 50]]], float)
    outputs = [found, np.array([[0.9, 0.8]]), np.zeros((1, 2))]
    assert value("map", outputs, labels) == pytest.approx(100 * 51 / 101)
    assert value("map", [found, np.zeros((1, 2)), np.zeros((1, 2))], labels) == 0


@pytest.mark.parametrize(
    ("name", "outputs", "label", "said"),
    [
        ("top5", [np.zeros((1, 9))], None, "a sample has no label; give the number of its class in y"),
        ("top5", [np.zeros((1, 9))], 0.5, "the labels are float64"),
        ("top5", [np.zeros((1, 9, 2))], 1, r"\[1, 9, 2\], not \[samples, classes\]"),
        ("miou", [np.zeros((1, 2, 4, 4))], np.zeros((2, 2), int), r"4, 4\], the labels are \[1, 2, 2\]"),
        ("perplexity", [np.zeros((1, 2, 4))], np.array([1, 4]), "tokens below 4"),
        ("spearman", [np.zeros((1, 1))], 1.0, "have no order"),
        ("retrieval", [np.zeros((1, 4))], np.zeros(4), "give two pairs or more"),
        ("retrieval", [np.zeros((1, 4))], None, "the other tower"),
        ("map", [np.zeros((1, 9, 4))], np.zeros((1, 5)), r"outputs are \[\[1, 9, 4\]\], not boxes"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(name, outputs, label, said):
    score = load_metric(name)
    score.add(label, {"float32": outputs})
    with pytest.raises(InputError, match=f"^--metric {name}: .*{said}"):
        score.report()


@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(2, 5))
def test_retrieval_is_the_mean_of_both_ways(seed, pairs, size):
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal((pairs, size)).astype(np.float32) for _ in range(2))
    found = measures.retrieval(measures.similarities(a, b))
    assert value("retrieval", [a[:, None]], b) == pytest.approx((found.a_to_b + found.b_to_a) / 2)
    assert value("retrieval", [3 * b], b) == pytest.approx(100)


def test_a_name_that_is_none_lists_those_that_are():
    with pytest.raises(InputError, match=r"give top1, sqnr, top5, map, .* or module:function"):
        load_metric("top6")


def test_a_function_of_the_user_lies_where_hwptq_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(tmp_path, "own_metric.py").write_text("def third(outputs, labels):\n    return 1 / 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])  # as the command has it
    score = load_metric("own_metric:third")
    score.add(None, {"float32": [np.zeros((1, 2))]})
    assert score.report()["float32"] == pytest.approx(1 / 3, abs=1e-4)


@pytest.mark.parametrize(
    ("most", "metric", "best", "asks_nothing"),
    [(0.9, "mine:map", 0.25, True), (0.2, "mine:map", 0.25, False), (0.9, "mine:loss", -3.0, False),
     (None, "mine:map", 0.25, False), (30, "top1", 10.0, False)],
)  # fmt: skip
def test_a_drop_of_all_there_is_asks_nothing(most, metric, best, asks_nothing):
    with pytest.raises(InputError, match="units") if asks_nothing else contextlib.nullcontext():
        check_most(most, metric, best)


def test_sqnr_is_measured_where_labels_would_allow_more():
    score = load_metric("sqnr")
    score.add(1, {"float32": [np.ones((1, 4))], "emitted": [np.full((1, 4), 0.9)]})
    assert score.report()["metric"] == "sqnr_db"
    assert score.report()["emitted"] == pytest.approx(20)


def test_a_loss_is_positive_where_the_score_gets_worse():
    assert drop({"metric": "perplexity", "float32": 10, "emitted": 12}) == 2
    assert drop({"metric": "miou", "float32": 60, "emitted": 58}) == 2
