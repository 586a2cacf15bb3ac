"""The observer `auto`: ranges of the least squared error where the outputs of other samples gain by them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import model, node, normal, save

from hwptq.data.dataset import from_batches
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.options import Options
from hwptq.pipeline.observer_choice import held_out
from hwptq.pipeline.stages import prepare
from hwptq.pipeline.step import Job
from hwptq.recipe import Recipe
from hwptq.targets import load_target

COUNT = 24


def method(tmp_path, later: float = 1.0, count: int = COUNT, **words) -> str:
    """What is chosen for a convolution of numbers of which one is far from all others; those of the last
    samples are `later` times as large."""
    weights = {"w": normal(1, 8, 8, 3, 3)}
    nodes = [node("Conv", "x w", "y")]
    imported = import_onnx(save(model(nodes, {"x": [1, 8, 48, 48]}, weights), tmp_path))
    rng = np.random.default_rng(0)
    samples = [rng.normal(size=(1, 8, 48, 48)) for _ in range(count)]
    samples[0][0, 3, 5, 7] = 40
    data = [{"x": (s * (later if i >= count - 6 else 1)).astype(np.float32)} for i, s in enumerate(samples)]
    job = Job(
        load_target("x86-64-vnni"),
        from_batches(data, imported.inputs),
        Options(recipe=Recipe(observer="auto"), **words),
    )
    return prepare(imported.module, job).stats.method


def test_what_is_rare_and_large_is_cut_off_where_the_outputs_gain(tmp_path):
    assert method(tmp_path) == "mse"


def test_it_is_not_where_samples_that_were_not_seen_are_larger(tmp_path):
    assert method(tmp_path, later=2.0) == "minmax"


@pytest.mark.parametrize("words", [{"count": 10}, {"precision": "w8a16"}])
def test_too_few_samples_and_more_bits_are_no_reason(tmp_path, words):
    assert method(tmp_path, **words) == "minmax"


@pytest.mark.parametrize(("count", "number"), [(None, 0), (10, 0), (11, 2), (16, 4), (64, 8), (1000, 8)])
def test_a_quarter_of_the_samples_is_held_out(count, number):
    assert held_out(count) == number
