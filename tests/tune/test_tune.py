"""--tune: what it chooses, what the choice depends on, and that the bits stay the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_models import MODELS

import hwptq
from hwptq.backends.backend import why_not_run
from hwptq.backends.static_c import backend as static_backend
from hwptq.backends.static_c.candidate_costs import Candidates, candidate_costs
from hwptq.errors import InputError
from hwptq.kernels.layer import Layer
from hwptq.operators.conv2d import Conv2d
from hwptq.options import Options
from hwptq.recipe import RECIPES
from hwptq.targets import load_target
from hwptq.tir.kernel import TensorType
from hwptq.tuning import tune as tuning

VNNI = load_target("x86-64-vnni")


def layer_of(rows: int, columns: int = 14) -> Layer:
    """3x3, from 16 to 96 channels, on an image that gives so many rows."""
    op = Conv2d((1, 1), (0, 0, 0, 0), (1, 1), 1, 3, -7, -128, 127)
    ones = np.ones(96, np.int32)
    constants = (np.ones((96, 3, 3, 16), np.int8), ones, 2**30 * ones, ones)
    x = TensorType((1, rows + 2, columns + 2, 16), "int8")
    return Layer(op, (x,), constants, TensorType((1, rows, columns, 96), "int8"))


def test_the_cheapest_wins_unless_it_gains_too_little() -> None:
    assert tuning.best([100.0, 98.0, 99.0], gain=0.03) == 0
    assert tuning.best([100.0, 98.0, 96.0], gain=0.03) == 2
    assert tuning.best([100.0, 99.0], gain=0.0) == 1
    assert tuning.best([100.0, 100.0], gain=0.0) == 0


def test_the_shape_of_a_layer_leaves_out_numbers_and_nothing_else() -> None:
    layer = layer_of(7)
    assert replace(layer, op=replace(layer.op, in_zero_point=5, lo=-7)).shape == layer.shape
    assert replace(layer, constants=tuple(c + 1 for c in layer.constants)).shape == layer.shape
    for field, value in (("strides", (3, 3)), ("groups", 2), ("weight_bits", 4)):
        assert replace(layer, op=replace(layer.op, **{field: value})).shape != layer.shape
    narrower = replace(layer.out, shape=(*layer.out.shape[:-1], 95))
    assert replace(layer, out=narrower).shape != layer.shape


def test_the_key_depends_on_device_versions_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    key = tuning._key("shape", VNNI)
    assert tuning._key("shape", load_target("x86-64-vnni")) == key
    assert tuning._key("another", VNNI) != key
    kernels = {**VNNI.kernels, "vpdpbusd": replace(VNNI.kernels["vpdpbusd"], tile_pixels=6)}
    assert tuning._key("shape", replace(VNNI, kernels=kernels)) != key
    emulated = tuning._key("shape", load_target("arm-cortex-a"))
    monkeypatch.setattr(tuning, "cpu_identity", lambda: "another machine")
    assert tuning._key("shape", VNNI) != key
    assert tuning._key("shape", load_target("arm-cortex-a")) == emulated
    monkeypatch.undo()
    monkeypatch.setattr(tuning, "__version__", "99")
    assert tuning._key("shape", VNNI) != key
    monkeypatch.undo()
    monkeypatch.setattr(tuning.tvm, "__version__", "99")
    assert tuning._key("shape", VNNI) != key


@pytest.mark.parametrize("name", ["x86-64-avx2", "arm-cortex-a"])
def test_costs_are_those_of_the_candidates(runnable: Callable[[str], str], name: str, tmp_path: Path) -> None:
    """Each candidate has a cost. A count is the same again, and about twice for a layer of twice the rows
    (a time is what else the machine does too)."""
    target = load_target(runnable(name))
    layers = [tuning.candidates(layer_of(rows), target) for rows in (4, 8)]
    first, second = (list(candidate_costs(layers, target, tmp_path)) for _ in range(2))
    assert [len(costs) for costs in first] == [len(layer.steps) for layer in layers]
    assert all(cost > 0 for costs in first for cost in costs)
    if target.toolchain.run:
        assert 1.5 < first[1][0] / first[0][0] < 2.5
        assert first == second


@pytest.fixture
def chosen_last(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Measurements by which the last candidate is the best; how many layers were measured each time."""
    measured: list[int] = []

    def costs(layers: Sequence[Candidates], *rest: Any) -> Iterator[tuple[float, ...]]:
        measured.append(len(layers))
        return (tuple(100.0 - 10 * j for j in range(len(layer.steps))) for layer in layers)

    monkeypatch.setattr(static_backend.candidate_costs, "candidate_costs", costs)
    return measured


def test_other_tiles_give_the_same_bits_and_the_second_time_nothing_is_measured(
    chosen_last: list[int], tmp_path: Path
) -> None:
    target = "x86-64-avx2"
    if reason := why_not_run(load_target(target)):
        pytest.skip(reason)
    arguments = MODELS["demo"].arguments(8, 4)
    options = Options(recipe=RECIPES["fast"])
    plain = hwptq.compile(**arguments, target=target, output=tmp_path / "plain", options=options)
    tuned = replace(options, tune=True, tune_cache=tmp_path / "cache")
    models = [
        hwptq.compile(**arguments, target=target, output=tmp_path / f"tuned{i}", options=tuned)
        for i in range(2)
    ]
    (count,) = chosen_last
    reports = [m.report["tuning"] for m in models]
    assert reports[0] == {"unit": "ns", "measured": count, "cached": 0, "changed": count}
    assert reports[1] == {"unit": "ns", "measured": 0, "cached": count, "changed": count}
    assert plain.report["tuning"] is None
    for model in models:
        assert model.report["bit_exact"]["mismatches"] == 0
    goldens = [dict(np.load(m.folder / "golden.npz")) for m in (plain, *models)]
    for golden in goldens[1:]:
        np.testing.assert_equal(golden, goldens[0])
    objects = [(m.folder / "digits.o").read_bytes() for m in (plain, *models)]
    assert objects[1] == objects[2] != objects[0]


def test_a_damaged_cache_is_measured_again(chosen_last: list[int], tmp_path: Path) -> None:
    target = "x86-64-avx2"
    if reason := why_not_run(load_target(target)):
        pytest.skip(reason)
    arguments = MODELS["demo"].arguments(4, 2)
    options = Options(recipe=RECIPES["fast"], tune=True, tune_cache=tmp_path / "cache")
    hwptq.compile(**arguments, target=target, output=tmp_path / "out", options=options)
    damaged = sorted((tmp_path / "cache").iterdir())[0]
    damaged.write_text('{"tile": 0')
    model = hwptq.compile(**arguments, target=target, output=tmp_path / "out", options=options)
    assert chosen_last[1:] == [1]
    assert model.report["tuning"]["measured"] == 1
    assert '"tile"' in damaged.read_text()
    assert damaged.read_text() != '{"tile": 0'


def test_what_cannot_be_measured_here_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lacks = "this machine's CPU lacks wings"
    monkeypatch.setattr(static_backend, "missing_cpu_features", lambda features: lacks)
    with pytest.raises(InputError, match=f"--tune measures candidates by running them, and {lacks}"):
        tuning._check(VNNI)
    with pytest.raises(InputError, match="this is no CPU"):
        tuning._check(load_target("nvidia-hopper-fp8"))


def test_a_cache_without_tuning_is_one_line(tmp_path: Path) -> None:
    options = Options(tune_cache=tmp_path)
    with pytest.raises(InputError, match="give --tune too"):
        hwptq.compile("m.onnx", "x86-64-avx2", output=tmp_path / "out", options=options)
