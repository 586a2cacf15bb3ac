"""A task's results are the same, whoever does it; what fails is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_models import model, node, normal, save

from hwptq.calibration import calibrate, calibrate_shards
from hwptq.data.dataset import Dataset, from_batches, open_dataset
from hwptq.errors import InputError
from hwptq.frontends.frontend import read_model
from hwptq.open_workers import open_workers
from hwptq.options import Options
from hwptq.pipeline.stages import prepare
from hwptq.pipeline.step import Job
from hwptq.progress import Progress
from hwptq.quant.observers import OBSERVERS
from hwptq.recipe import RECIPES
from hwptq.report.accuracy import Score
from hwptq.search import drop_search
from hwptq.search.choose import BitWidths, Chooser
from hwptq.search.drop_search import bit_widths
from hwptq.targets import load_target
from hwptq.workers.workers import Here, Task, Workers, shards

DEMO = Path(__file__).parents[2] / "examples" / "digits" / "digits.onnx"


@dataclass(frozen=True)
class Squares(Task[int, int]):
    """Squares; 13 is refused."""

    add: int

    def bench(self) -> list[int]:
        return []

    def work(self, bench: list[int], item: int) -> int:
        if item == 13:
            raise InputError("13 is refused")
        bench.append(item)
        return item * item + self.add


@dataclass(frozen=True)
class Variable(Task[str, "str | None"]):
    """Variables of the environment."""

    def bench(self) -> None:
        return None

    def work(self, bench: None, item: str) -> str | None:
        return os.environ.get(item)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two processes; skipped where Dask is not installed."""
    pytest.importorskip("distributed", reason="Dask is not installed: pip install hwptq[cluster]")
    with open_workers("local:2", [load_target("x86-64-avx2")]) as workers:
        yield workers


def test_workers_keep_the_memory_of_tensors(cluster: Any) -> None:
    """Dask would have them give it back each time; the variables that hold threads to one stay."""
    found = list(cluster.map(Variable(), ["MALLOC_TRIM_THRESHOLD_", "OMP_NUM_THREADS"]))
    assert found == [None, "1"]


def test_results_are_in_their_order(cluster: Any) -> None:
    for workers in (Here(), cluster):
        assert list(workers.map(Squares(1), range(12))) == [i * i + 1 for i in range(12)]
        with pytest.raises(InputError, match="13 is refused"):
            list(workers.map(Squares(0), [12, 13]))


def test_a_worker_without_a_path_says_so_before_work_begins(cluster: Any) -> None:
    with pytest.raises(InputError, match=r"tcp://.*has no /not/here"):
        cluster.check([load_target("x86-64-avx2")], ["/not/here"])


@pytest.mark.parametrize("place", ["local:0", "local:x", "somewhere"])
def test_places_that_are_none(place: str) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed: pip install hwptq[cluster]")
    with pytest.raises(InputError, match="--cluster"), open_workers(place, []):
        pass


def test_stats_by_a_cluster_are_those_of_this_process(cluster: Any, tmp_path: Path) -> None:
    imported = read_model(DEMO)
    (shape, _), *_ = imported.inputs.values()
    np.savez(tmp_path / "c.npz", x=np.random.default_rng(0).normal(size=(130, *shape[1:])).astype(np.float32))
    data = open_dataset(tmp_path / "c.npz", imported.inputs, None)
    for observer in (OBSERVERS["minmax"], OBSERVERS["mse"]):
        here, there = (
            calibrate_shards(imported.module, data, observer, workers, Progress())
            for workers in (Here(), cluster)
        )
        assert here.samples == there.samples == data.count
        assert here.ranges == there.ranges


def test_what_is_started_is_done_when_it_is_asked_for(cluster: Any) -> None:
    for workers in (Here(), cluster):
        first, refused, last = (workers.start(Squares(1), item) for item in (2, 13, 3))
        assert (last(), first()) == (10, 5)
        with pytest.raises(InputError, match="13 is refused"):
            refused()


def test_a_search_by_a_cluster_finds_what_this_process_finds(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges, roundings, sensitivities, trials and their answers, where every trial is refused."""
    monkeypatch.setattr(drop_search, "STEPS", 2)
    monkeypatch.setattr(Chooser, "offers_wide", property(lambda chooser: False))  # a search of its own
    nodes = [node("Conv", "x v", "a", "first"), node("Conv", "a w", "b", "second"),
             node("GlobalAveragePool", "b", "c", "mean"), node("Flatten", "c", "y", "flat")]  # fmt: skip
    weights = {"v": normal(0, 4, 3, 3, 3), "w": normal(1, 5, 4, 3, 3)}
    save(model(nodes, {"x": (1, 3, 6, 6)}, weights), tmp_path)
    np.savez(tmp_path / "c.npz", x=normal(2, 66, 3, 6, 6), y=np.arange(66) % 5)
    imported = read_model(tmp_path / "model.onnx")
    data = open_dataset(tmp_path / "c.npz", imported.inputs, None)
    options = Options(max_drop=-100.0, lower_ends=True, recipe=RECIPES["default"])

    def found(workers: Workers) -> BitWidths:
        job = Job(load_target("x86-64-avx2"), data, options, workers=workers)
        widths = bit_widths(prepare(imported.module, job), job, imported.given, data)
        assert widths is not None
        return widths

    here, there = found(Here()), found(cluster)
    assert here.report() == there.report()
    assert len(here.tried) > 1


@given(st.integers(1, 300), st.integers(1, 70))
def test_shards_are_all_of_it_once(count: int, size: int) -> None:
    parts = shards(count, size)
    assert [i for first, end in parts for i in range(first, end or 0)] == list(range(count))
    assert shards(None) == [(0, None)]


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=20), st.integers(1, 5), st.integers(1, 25))
def test_parts_of_data(values: list[int], size: int, limit: int) -> None:
    rows = [{"x": np.full(2, v, np.float32), "y": np.int64(v)} for v in values]
    data: Dataset = from_batches(rows, {"x": ((1, 2), "float32")}).take(limit)
    joined = [sample.label for part in shards(data.count, size) for sample in data.part(*part)]
    assert joined == [sample.label for sample in data] == values[:limit]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=12), st.integers(1, 12))
def test_scores_of_parts_merge(pairs: list[tuple[int, int]], cut: int) -> None:
    """Counts exactly; sums of floats of so few values too."""

    def scored(rows: list[tuple[int, int]]) -> Score:
        score = Score()
        for label, answer in rows:
            exact = np.eye(3, dtype=np.float32)[[label]]
            score.add(label, {"float32": [exact], "emitted": [np.eye(3, dtype=np.float32)[[answer]]]})
        return score

    whole, merged = scored(pairs), Score().fresh()
    for part in (pairs[:cut], pairs[cut:]):
        if part:
            merged.merge(scored(part))
    assert merged.report() == whole.report()
    assert merged.classes == whole.classes


def test_data_read_once_stays_here() -> None:
    imported = read_model(DEMO)
    shape, _ = next(iter(imported.inputs.values()))
    rows = [{"x": np.ones(shape[1:], np.float32) * i} for i in range(3)]
    once = from_batches(iter(rows), imported.inputs)
    found = calibrate_shards(imported.module, once, OBSERVERS["minmax"], Here(), Progress())
    wanted = calibrate(imported.module, (s.inputs for s in from_batches(rows, imported.inputs)))
    assert found.ranges == wanted.ranges
