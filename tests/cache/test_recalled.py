"""A compilation that takes results from the cache gives the same files as one that computes all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import model, node, normal, save

import hwptq
from hwptq.cache.content import states
from hwptq.cache.versions import extensions
from hwptq.calibration import CalibrationStats, calibrate
from hwptq.data.dataset import from_batches, open_dataset
from hwptq.forecast import plan
from hwptq.frontends.frontend import read_model
from hwptq.pipeline import step
from hwptq.quant.histogram import Histogram
from hwptq.quant.observers import OBSERVERS
from hwptq.search import choose
from hwptq.user_cache import results_folder

TARGET = "x86-64-avx2"
SHAPE = (3, 8, 8)


@pytest.fixture
def case(tmp_path: Path) -> dict[str, Any]:
    nodes = [
        node("Conv", "x w", "a", "first", pads=[1, 1, 1, 1]),
        node("Relu", "a", "b", "relu"),
        node("Conv", "b v", "c", "second"),
        node("Conv", "c u", "y", "third"),
    ]
    weights = {"w": normal(0, 16, 3, 3, 3), "v": normal(1, 16, 16, 3, 3), "u": normal(2, 8, 16, 1, 1)}
    save(model(nodes, {"x": (1, *SHAPE)}, weights), tmp_path)
    np.savez(tmp_path / "c.npz", x=normal(3, 4, *SHAPE))
    return {"model": tmp_path / "model.onnx", "target": TARGET, "calibration_data": str(tmp_path / "c.npz")}


def files(folder: Path) -> dict[str, bytes]:
    """What was compiled: all files but the report, whose seconds differ."""
    found = {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in ("report.json", "report.html")}
    report = json.loads((folder / "report.json").read_text())
    return {
        **found,
        "report": json.dumps({k: v for k, v in report.items() if k not in ("seconds", "asked")}).encode(),
    }


def test_the_same_files(case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"budget": "weights=0.9x"}
    hwptq.compile(**case, output=tmp_path / "plain", **options)
    assert not results_folder().exists()
    hwptq.compile(**case, output=tmp_path / "first", cache=True, **options)
    kinds = {path.name.rpartition("-")[0] for path in results_folder().iterdir()}
    assert {"calibration", "RoundWeights", "sensitivity", "kernel", "library", "import-check"} <= kinds

    def computed(*arguments: Any, **words: Any) -> Any:
        raise AssertionError("computed again")

    monkeypatch.setattr(step, "calibrate_shards", computed)
    monkeypatch.setattr(choose, "measure_sensitivity", computed)
    monkeypatch.setattr(hwptq.passes.RoundWeights, "transform_module", computed, raising=False)
    hwptq.compile(**case, output=tmp_path / "again", cache=True, **options)
    plain = files(tmp_path / "plain")
    assert files(tmp_path / "first") == plain
    assert files(tmp_path / "again") == plain


def test_another_budget_and_another_target_start_from_there(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(**case, cache=True, budget="weights=0.9x")
    calls: list[str] = []
    for module, name in ((step, "calibrate_shards"), (choose, "measure_sensitivity")):
        real = getattr(module, name)
        spy = lambda *a, real=real, name=name, **w: calls.append(name) or real(*a, **w)  # noqa: E731
        monkeypatch.setattr(module, name, spy)
    plan(**case, cache=True, budget="weights=0.8x")
    plan(**{**case, "target": "arm-cortex-a"}, cache=True)
    assert calls == []
    plan(**case, cache=True, recipe=replace(hwptq.Recipe(), observer="mse"))
    assert calls == ["calibrate_shards"]


@pytest.mark.parametrize("method", OBSERVERS)
def test_statistics_survive_their_bytes(method: str, case: dict[str, Any]) -> None:
    imported = read_model(case["model"])
    data = open_dataset(case["calibration_data"], imported.inputs)
    stats = calibrate(imported.module, (sample.inputs for sample in data), method)
    content = states((CalibrationStats, Histogram, OBSERVERS[method]))
    found = content.read(content.write(stats))
    assert found.samples == stats.samples
    assert list(found.observers) == list(stats.observers)
    assert found.ranges == stats.ranges
    assert found.merge(stats).ranges == stats.merge(stats).ranges


def test_data_is_known_by_what_it_holds(tmp_path: Path) -> None:
    inputs = {"x": ((1, 2), "float32")}
    np.savez(tmp_path / "a.npz", x=np.ones((3, 2), np.float32))
    np.savez(tmp_path / "b.npz", x=np.ones((3, 2), np.float32) * 2)
    a, b = (open_dataset(tmp_path / name, inputs) for name in ("a.npz", "b.npz"))
    assert a.identity == open_dataset(tmp_path / "a.npz", inputs).identity
    assert len({a.identity, b.identity, a.take(2).identity}) == 3
    rows = [{"x": np.ones(2, np.float32)}]
    assert from_batches(rows, inputs).identity is not None
    assert from_batches(lambda: iter(rows), inputs).identity is None
    assert from_batches(iter(rows), inputs).identity is None


def test_loaded_extensions_are_known_by_their_source() -> None:
    import calibration_extension

    assert calibration_extension.__name__ in dict(extensions())
    assert "numpy" not in dict(extensions())
