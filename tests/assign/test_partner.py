"""The partner of a tower: what a choice of dtypes loses is what the order of its similarities loses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_models import model, node, normal, save

from hwptq.calibration import calibrate
from hwptq.data.dataset import from_batches
from hwptq.errors import InputError
from hwptq.evaluate.partner import Partner, read_partner
from hwptq.evaluate.steps import Steps
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.options import Options
from hwptq.passes.graph.quantization_plan import Choices, QuantizationPlan
from hwptq.passes.graph.rounded_activations import RoundedActivations
from hwptq.pipeline import rounding_choice
from hwptq.pipeline.stages import fuse, insert, integers, prepare
from hwptq.pipeline.step import Job
from hwptq.recipe import Recipe
from hwptq.targets import load_target

seeds = st.integers(0, 2**32 - 1)


def stored(rows: np.ndarray, folder: Path) -> Path:
    np.save(folder / "partner.npy", rows)
    return folder / "partner.npy"


@given(seeds, st.floats(0.1, 10))
def test_nothing_is_lost_where_the_order_is_kept(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    partner, exact = Partner(np.linalg.qr(rng.standard_normal((6, 6)))[0][:4]), rng.standard_normal(6)
    assert partner.loss(exact, exact * size) == pytest.approx(0, abs=1e-9)
    assert partner.loss(exact, rng.standard_normal(6)) >= 0


def test_a_job_reads_its_partner_once(tmp_path: Path) -> None:
    path = tmp_path / "partner.npy"
    np.save(path, np.eye(3, dtype=np.float32))
    job = Job(load_target("arm-cortex-a"), options=Options(partner=path))
    first = job.partner
    path.unlink()
    assert first is not None
    assert job.partner is first


def test_errors_that_no_partner_tells_apart_cost_little() -> None:
    """Along the axis on which all partners are alike, and along that on which they differ."""
    partner = Partner(np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    exact = np.array([1.0, 0.8, 0.0])
    aside, across = (partner.loss(exact, exact + np.array(e)) for e in ((0, 0, 0.3), (-0.2, 0.2, 0)))
    assert across > 20 * aside


def test_partners_are_read_as_unit_rows(tmp_path: Path) -> None:
    found = read_partner(stored(np.array([[3.0, 4.0], [0.0, 2.0]], np.float32), tmp_path))
    np.testing.assert_allclose(found.rows, [[0.6, 0.8], [0.0, 1.0]])
    with pytest.raises(InputError, match="the first output of the model has 3"):
        found.loss(np.ones(3), np.ones(3))


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (np.ones(4, np.float32), r"give embeddings \[N, D\]"),
        (np.ones((4, 2), np.int64), r"give embeddings \[N, D\]"),
        (np.full((4, 2), np.nan), "not finite"),
    ],
)
def test_what_is_no_partner_is_refused(tmp_path: Path, rows: np.ndarray, why: str) -> None:
    with pytest.raises(InputError, match=why):
        read_partner(stored(rows, tmp_path))


def tower(folder: Path, samples: int = 40, **options: Any) -> tuple[Any, Job]:
    """A model of two dense layers whose embeddings have a partner, and the job to quantize it."""
    weights = {"w": normal(1, 24, 12), "v": normal(2, 12, 6)}
    nodes = [node("MatMul", "x w", "h"), node("Relu", "h", "r"), node("MatMul", "r v", "y")]
    imported = import_onnx(save(model(nodes, {"x": [1, 24]}, weights), folder))
    rng = np.random.default_rng(3)
    data = from_batches([{"x": rng.normal(size=(samples, 24)).astype(np.float32)}], imported.inputs)
    partner = stored(rng.normal(size=(9, 6)).astype(np.float32), folder)
    chosen = Options(partner=partner, recipe=Recipe(rounding="descent", correct_bias=True), **options)
    return imported.module, Job(load_target("x86-64-vnni"), data, chosen)


def test_what_pairs_lose_decides_on_the_rounding(tmp_path: Path) -> None:
    """By the samples that are held out; all count for the rounding that is taken."""
    module, job = tower(tmp_path, precision="w4a8")
    prepared = prepare(module, job)
    held = [s.inputs for s in job.samples.part(30, None)]
    exact = [Steps(prepared.float32).run(x)[0] for x in held]
    assert job.partner is not None

    def lost(method: str) -> np.ndarray:
        recipe = replace(job.options.recipe, rounding=method)
        alone = replace(job.options, recipe=recipe, partner=None)
        other = replace(job, data=job.samples.part(0, 30), options=alone)
        integer = integers(insert(prepared, other), other)
        found = [Steps(integer).run(x)[0] for x in held]
        return np.array([job.partner.loss(a, b) for a, b in zip(exact, found, strict=True)])

    methods = ["descent", *rounding_choice.OTHERS]
    wanted = methods[rounding_choice.least([lost(m) for m in methods])]
    assert insert(prepared, job).rounding == wanted


def test_the_recipe_decides_unless_another_is_surely_better(tmp_path: Path) -> None:
    usual = np.array([1.0, 2.0, 3.0, 4.0])
    assert rounding_choice.least([usual, usual - 0.1, usual - 0.2]) == 2
    assert rounding_choice.least([usual, usual + np.array([-9.0, 4.0, 2.0, 2.0])]) == 0
    module, job = tower(tmp_path, samples=15)  # too few to hold some out
    assert insert(prepare(module, job), job).rounding == "descent"


@pytest.mark.parametrize(("close", "wanted"), [(0.4, "mse"), (0.6, "minmax")])
def test_what_pairs_lose_decides_on_ranges(
    close: float, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges that cut something off have to halve it."""
    module, job = tower(tmp_path)
    losses = iter([1.0, close])
    monkeypatch.setattr(RoundedActivations, "lost_by_pairs", lambda *_: next(losses))
    job = replace(job, options=replace(job.options, recipe=Recipe(observer="auto")))
    assert prepare(module, job).stats.method == wanted


def test_pairs_lose_more_by_wider_ranges(tmp_path: Path) -> None:
    module, job = tower(tmp_path)
    assert job.partner is not None
    module = fuse(module)
    samples = [s.inputs for s in job.samples]
    trial = RoundedActivations(module, "main", samples)

    def lost(factor: float) -> float:
        stats = calibrate(module, [{"x": factor * s["x"]} for s in samples])
        plan = QuantizationPlan(module, "main", job.target, stats, Choices(None, None, {}))
        return trial.lost_by_pairs(plan, job.partner)

    assert 0 < 20 * lost(1) < lost(16)
