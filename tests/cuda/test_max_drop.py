"""--max-drop for Hopper where there is no GPU: the emulator runs the choices; cycles are saved."""

from __future__ import annotations

from pathlib import Path

import pytest

import hwptq
from hwptq.data.dataset import open_dataset
from hwptq.data.preprocess import load_preprocess
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.pipeline.stages import prepare
from hwptq.pipeline.step import Job
from hwptq.recipe import RECIPES
from hwptq.search import drop_search
from hwptq.search.choose import BitWidths, Chooser
from hwptq.search.drop_search import cheapest_within
from hwptq.search.trial import Lost, Trial
from hwptq.targets import load_target

DEMO = Path(__file__).parents[2] / "examples" / "digits"
TARGET = load_target("nvidia-hopper-fp8")
SAMPLES = 16


class Search:
    """The demo, ready to be searched."""

    def __init__(self) -> None:
        model = import_onnx(DEMO / "digits.onnx")
        preprocess = load_preprocess(DEMO / "preprocess.toml")
        calibration, evaluation = (
            open_dataset(str(DEMO / f"{name}.npz"), model.inputs, preprocess).take(SAMPLES)
            for name in ("calibration", "evaluation")
        )
        job = Job(TARGET, calibration, hwptq.Options(max_drop=0.0, recipe=RECIPES["fast"]))
        prepared = prepare(model.module, job)
        self.chooser = Chooser(prepared, job)
        self.trial = Trial(prepared, job, model.outputs, evaluation)


@pytest.fixture(scope="module")
def search() -> Search:
    return Search()


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drop_search, "STEPS", 4)


def test_the_emulator_runs_what_is_tried(search: Search) -> None:
    found = cheapest_within(search.chooser, search.trial.loss, 0.0)
    tried = found.report()["tried"]
    assert {"cycles", "drop"} == set(tried[0])
    assert tried[0]["cycles"] == pytest.approx(search.chooser.least("cycles"))  # all in e4m3
    assert search.trial.accuracy["samples"] == SAMPLES
    assert search.trial.weight_bytes > 0
    held = [t["cycles"] for t in tried if t["drop"] <= 0.0]
    highest = search.chooser.costs.highest("cycles")
    assert found.report()["predicted"]["cycles"] <= min(held, default=highest)


def test_what_e4m3_loses_too_much_in_becomes_dearer(search: Search) -> None:
    """A loss that only the cheap half of the range has: the search ends above it, in a mix."""
    least, most = search.chooser.least("cycles"), search.chooser.costs.highest("cycles")

    def loss(widths: BitWidths) -> Lost:
        return Lost(float(search.chooser.costs.total("cycles", widths.pairs) < (least + most) / 2 - 1))

    found = cheapest_within(search.chooser, loss, 0.0)
    assert len(set(found.pairs.values())) > 1
    assert all(drop in (0.0, 1.0) for _, drop in found.tried)


def test_nothing_holds_but_bfloat16(search: Search) -> None:
    found = cheapest_within(search.chooser, lambda widths: Lost(1.0), 0.0)
    assert set(found.pairs.values()) == {("bfloat16", "bfloat16")}
    assert search.chooser.costs.total("cycles", found.pairs) > search.chooser.least("cycles")


def test_one_hit_more_or_less_does_not_lead_the_search_astray(search: Search) -> None:
    """float32 believes that the quarter holds; by chance it loses a hit there, and none a step further."""
    cost, highest = search.chooser.costs, search.chooser.costs.highest("cycles")
    least = search.chooser.least("cycles")
    quarter = least + (highest - least) * 0.25

    def loss(widths: BitWidths) -> Lost:
        cycles = cost.total("cycles", widths.pairs)
        believed = 1.0 if cycles <= least else 0.0
        return Lost(0.5 if cycles <= quarter else -0.5, believed)

    found = cheapest_within(search.chooser, loss, 0.0)
    assert quarter < cost.total("cycles", found.pairs) <= least + (highest - least) * 0.5 + 1e-6


def test_what_holds_must_hold_as_measured(search: Search) -> None:
    """Whatever float32 believes, a choice that measurably loses too much is not taken."""
    found = cheapest_within(search.chooser, lambda widths: Lost(1.0, 0.0), 0.0)
    assert set(found.pairs.values()) == {("bfloat16", "bfloat16")}
