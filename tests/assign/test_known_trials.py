"""What a trial is known by: the metric of the user counts with the file that it is written in."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from hwptq.cache.cache import Cache
from hwptq.cache.digest import digest
from hwptq.cache.store import Store
from hwptq.calibration import CalibrationStats
from hwptq.ir.provenance import Origin
from hwptq.search.known_trials import Found, Lost, MetricSource, recalled
from hwptq.user_code import user_object


def plain(outputs, labels):
    return 1.0


def held(limit):
    return lambda outputs, labels: limit


def test_a_metric_is_known_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "changing_metric.py"
    file.write_text("def score(outputs, labels):\n    return 1.0\n")
    user_object("changing_metric:score")
    first = MetricSource("changing_metric:score").identity
    assert first == MetricSource("changing_metric:score").identity
    file.write_text("def score(outputs, labels):\n    return 2.0\n")
    assert first != MetricSource("changing_metric:score").identity
    monkeypatch.delitem(sys.modules, "changing_metric")


def test_names_and_functions_without_a_state_are_known() -> None:
    found = [MetricSource(m).identity for m in (None, "map", "top5", plain)]
    assert None not in found
    assert len(set(found)) == len(found)


def test_what_no_file_says_is_not_known() -> None:
    assert MetricSource(held(3)).identity is None
    assert MetricSource(len).identity is None


def test_statistics_stay_what_they_are_when_ranges_are_asked_for() -> None:
    stats = CalibrationStats(samples=1)
    stats.observe("main", Origin("x"), np.arange(6, dtype=np.float32))
    before = digest(stats)
    stats.range_of("x")
    assert digest(stats) == before
    stats.observe("main", Origin("x"), np.full(6, 9, np.float32))
    assert digest(stats) != before


def test_a_trial_is_read_as_it_was_written(tmp_path: Path) -> None:
    wanted = Found({"metric": "top1", "float32": 81.25, "outputs": [{"sqnr_db": None}]}, 4, Lost(0.1, 0.2))
    cache = Cache(Store(tmp_path, 10**6))
    assert recalled(cache, (1, MetricSource("map")), lambda: wanted) == wanted
    assert recalled(cache, (1, MetricSource("map")), lambda: pytest.fail("it is known")) == wanted
    made = []
    for _ in range(2):
        recalled(cache, (1, MetricSource(held(3))), lambda: made.append(1) or wanted)
    assert len(made) == 2
