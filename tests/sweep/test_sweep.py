"""A sweep compiles the whole matrix, tells what failed, and goes on with what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_models import model, node, normal, save

from hwptq.errors import InputError, ManyErrors
from hwptq.options import Options
from hwptq.page.charts.pareto import pareto, pareto_chart
from hwptq.sweep import sweep as sweeping
from hwptq.sweep.matrix import Run, read_matrix
from hwptq.sweep.page import sweep_page, write_sweep
from hwptq.sweep.sweep import apart, sweep

TARGET = "x86-64-avx2"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save(
        model([node("Conv", "x w", "y", "only")], {"x": (1, 3, 4, 4)}, {"w": normal(0, 4, 3, 1, 1)}), tmp_path
    )
    np.savez(tmp_path / "c.npz", x=normal(1, 3, 3, 4, 4))
    text = f"""
    targets = ["{TARGET}"]
    [options]
    samples = 2
    [[model]]
    name = "one"
    model = "{tmp_path / "model.onnx"}"
    calibration-data = "{tmp_path / "c.npz"}"
    [[recipe]]
    name = "usual"
    recipe = "fast"
    [[recipe]]
    name = "too-small"
    recipe = "fast"
    budget = "weights=1B"
    """
    path = tmp_path / "matrix.toml"
    path.write_text(text)
    return path


def test_a_row_for_each(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, out = read_matrix(file), tmp_path / "out"
    assert [run.folder for run in runs] == [f"one/{TARGET}/usual", f"one/{TARGET}/too-small"]
    rows = sweep(runs, out, cache=True)
    assert [row["exit_code"] for row in rows] == [0, 4]
    assert "can't be held" in rows[1]["error"]
    assert rows[0]["mismatches"] == 0
    report = json.loads((out / runs[0].folder / "report.json").read_text())
    assert rows[0]["weight_bytes"] == report["weight_bytes"]["quantized"]
    write_sweep(rows, out, "matrix")
    assert json.loads((out / "sweep.json").read_text())["rows"] == rows
    assert "can&#39;t be held" in (out / "sweep.html").read_text()

    compiled: list[Any] = []
    real = sweeping.compile
    monkeypatch.setattr(sweeping, "compile", lambda *a: compiled.append(a) or real(*a))
    assert sweep(runs, out, cache=True) == rows
    assert compiled == []
    next((out / runs[0].folder).glob("*.o")).unlink()
    assert sweep(runs, out, cache=True) == rows
    assert len(compiled) == 1


def test_neighbours_in_the_order_of_work_share_no_model() -> None:
    given = {
        "recipe": "fast",
        "file": "",
        "calibration_data": None,
        "evaluation_data": None,
        "preprocess": None,
    }
    runs = [
        Run(model=model, target=target, options=Options(), **given)  # type: ignore[arg-type]
        for model in "aab" for target in "xy"
    ]  # fmt: skip
    order = apart(runs, [run.target == "y" for run in runs])
    assert sorted(order) == list(range(6))
    assert [runs[i].model for i in order] == ["a", "b", "a", "b", "a", "a"]
    assert [runs[i].target for i in order] == ["y", "y", "y", "x", "x", "x"]


def test_all_mistakes_of_a_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(
        'target = ["a"]\n[[model]]\nmodel = 3\n[[recipe]]\nname = "a/b"\nprecison = "w8a8"\nsamples = true\n'
    )
    with pytest.raises(ManyErrors) as error:
        read_matrix(path)
    said = str(error.value)
    for part in ("did you mean targets?", "model[0]: give its name", "model[0].model: 3 is no str",
                 "did you mean precision?", "recipe[0].samples: True is no int",
                 "recipe[0].name"):  # fmt: skip
        assert part in said
    path.write_text("[")
    with pytest.raises(InputError, match="not a TOML file"):
        read_matrix(path)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8))
def test_none_that_is_kept_is_beaten(points: list[tuple[int, int]]) -> None:
    rows = [{"weight_bytes": size, "score": score} for size, score in points]
    kept = [point for point, best in zip(points, pareto(rows), strict=True) if best]
    assert kept
    for size, score in points:
        assert any(s <= size and a >= score for s, a in kept)
    for size, score in kept:
        assert not any(s <= size and a >= score and (s, a) != (size, score) for s, a in points)


def test_the_page_draws_what_was_measured() -> None:
    row = {"model": "m", "target": "t", "error": None, "metric": "top1", "float32": 90.0, "reference": 89.0,
           "mismatches": 0}  # fmt: skip
    rows = [{**row, "recipe": "a", "emitted": 88.0, "weight_bytes": 2000},
            {**row, "recipe": "b", "emitted": None, "weight_bytes": 1000}]  # fmt: skip
    text = sweep_page(rows, "<title>")
    assert "&lt;title&gt;" in text
    assert text.count("none is better in both") == 1
    assert "<svg" in text or "not drawn" in text


def test_a_plot_of_equal_scores_says_which_they_are() -> None:
    """98.5 stood at a mark called 99, the only one of an axis without a height."""
    row = {"score": 98.5, "target": "t", "recipe": "a", "weight_bytes": 2000}
    drawn = pareto_chart([row, {**row, "recipe": "b", "weight_bytes": 1000}], "top1")
    if "not drawn" in drawn:
        pytest.skip(drawn)
    assert ">98.4<" in drawn
    assert ">98.6<" in drawn
    assert ">99<" not in drawn
