"""Consistency of two towers: measures against their definitions, and the command on two small models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command import Command
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx_models import model, node, normal, save
from scipy import stats

import hwptq as package
from hwptq.backends.backend import why_not_run
from hwptq.consistency.depth import noise_by_depth
from hwptq.consistency.measures import agreement, consistency, retrieval, similarities
from hwptq.targets import load_target

TARGET = "x86-64-avx2"
_REASON = why_not_run(load_target(TARGET))
native = pytest.mark.skipif(_REASON is not None, reason=f"{TARGET}: {_REASON}")
matrices = arrays(np.float64, (6, 6), elements=st.integers(-4, 4).map(float))


@given(matrices, matrices)
def test_ranks_agree_as_scipy_says(s, other):
    found = agreement(s, other)
    rows = [(x, y) for x, y in zip(s, other, strict=True) if np.ptp(x) and np.ptp(y)]
    if len(rows) == len(s):
        np.testing.assert_allclose(found.spearman, np.mean([stats.spearmanr(*r).statistic for r in rows]))
        np.testing.assert_allclose(found.kendall, np.mean([stats.kendalltau(*r).statistic for r in rows]))


def test_retrieval_counts_rows_columns_and_ties():
    s = np.array([[0.9, 0.1, 0.0], [0.95, 0.8, 0.8], [0.0, 0.2, 0.2]])
    found = retrieval(s)
    assert found.a_to_b == pytest.approx(100 / 3)  # row 1 prefers another, row 2 has a tie
    assert found.b_to_a == pytest.approx(100 / 3)  # only column 1 is right
    assert found.margin == pytest.approx((0.8 - 0.15 + 0.0) / 3)


@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_the_length_of_embeddings_does_not_count(seed, size):
    a, b = np.random.default_rng(seed).standard_normal((2, 5, 4))
    np.testing.assert_allclose(similarities(a * size, b), similarities(a, b), atol=1e-12)


def test_what_is_equal_agrees_wholly_and_has_no_noise():
    both = tuple(np.random.default_rng(0).standard_normal((2, 8, 4)))
    found = consistency(both, both)
    assert found.agreement is not None
    assert (found.agreement.spearman, found.agreement.same_nearest) == (pytest.approx(1.0), 100.0)
    assert found.noise == (float("inf"), float("inf"))
    assert found.float32 == found.emitted


def test_noise_by_depth_is_that_of_layers_in_their_order():
    rows = [{"name": f"l{i}", "sqnr_db": 40.0 - i} for i in range(25)]
    rows[3]["sqnr_db"] = None  # no noise
    found = noise_by_depth(rows)
    assert [s.depth for s in found][-1] == 100
    assert len(found) == 10
    assert (found[0].sqnr_db, found[0].noisiest, found[0].least_db) == (39.5, "l1", 39.0)
    assert found[-1].noisiest == "l24"
    assert sorted(s.depth for s in found) == [s.depth for s in found]
    assert noise_by_depth([]) == ()


def towers(folder: Path) -> Path:
    """Two compiled towers, out_a and out_b, their models and pairs.npz: b reads what a gives."""
    rng = np.random.default_rng(3)
    turn = np.linalg.qr(rng.standard_normal((16, 16)))[0].astype(np.float32)
    x = normal(5, 24, 16)
    data = {"x": x, "z": x @ turn}
    for name, key, weight in (("a", "x", turn), ("b", "z", np.eye(16, dtype=np.float32))):
        proto = model([node("MatMul", f"{key} w", "e", "dense")], {key: ["N", 16]}, {"w": weight})
        path = save(proto, folder, name)
        package.compile(path, TARGET, {key: data[key]}, output=folder / f"out_{name}", recipe="fast")
    np.savez(folder / "pairs.npz", **data)
    return folder


@native
def test_the_command(hwptq: Command, tmp_path: Path):
    folder = towers(tmp_path)
    arguments = folder / "out_a", folder / "out_b", "--pairs", folder / "pairs.npz"
    models = "--float-a", folder / "a.onnx", "--float-b", folder / "b.onnx"
    shown = hwptq("consistency", *arguments)
    assert shown.code == 0
    assert "R@1" in shown.stdout
    found = json.loads(
        hwptq("consistency", *arguments, *models, "--json", "--html", folder / "p.html").stdout
    )
    assert found["pairs"] == 24
    assert found["float32"]["a_to_b"] == 100.0
    assert found["emitted"]["a_to_b"] > 95
    assert found["agreement"]["spearman"] > 0.99
    assert min(found["noise"]) > 25
    assert [tower[-1]["noisiest"] for tower in found["depth"]] == ["dense", "dense"]
    assert "R@1" in (folder / "p.html").read_text(encoding="utf-8")
    refused = hwptq("consistency", *arguments, *models[:2])
    assert (refused.code, "give both" in refused.error) == (2, True)
    np.savez(folder / "short.npz", x=normal(1, 3, 16))
    refused = hwptq("consistency", *arguments[:3], folder / "short.npz")
    assert "no array for input 'z'" in refused.error
