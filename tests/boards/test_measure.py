"""hwptq targets measure: costs of layers as a board has them, and what they are used for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import free_port

from hwptq import cost_measurement
from hwptq.cost_measurement import FEW, MANY, SHAPES, Cost, Shape, descriptor, network, per_product
from hwptq.frontends.frontend import read_model
from hwptq.ir.macs import float_macs
from hwptq.latency import Latency
from hwptq.targets import load_target

CHIP = """\
schema = 1
name = "chip"
extends = "x86-64-avx2"
[[op]]
op = "conv2d"
pairs = [["int8", "int8"]]
"""


@pytest.fixture
def place() -> Iterator[str]:
    """--on, with a server behind it."""
    rpc = pytest.importorskip("tvm.rpc.server")
    port = free_port()
    server = rpc.Server("127.0.0.1", port, port + 50, silent=True)
    yield f"rpc:127.0.0.1:{server.port}"
    server.terminate()


@pytest.fixture
def one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions alone, so that it is quick."""
    monkeypatch.setattr(cost_measurement, "SHAPES", {"conv2d": Shape(16, 12, 3)})


def test_measured_through_rpc(
    place: str, one_kind: None, hwptq: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "chip.toml").write_text(CHIP)
    output = tmp_path / "measured.toml"
    words = ("--on", place, "--output", output, "--runs", "20", "--json")
    outcome = hwptq("targets", "measure", tmp_path / "chip.toml", *words)
    assert outcome.code == 0, outcome.stderr
    (row,) = json.loads(outcome.stdout)["costs"]
    assert (row["op"], row["dtype"], row["unit"]) == ("conv2d", "int8", "ns")
    assert place in row["by"]
    measured = load_target(output)
    assert measured.cost_of("conv2d", ("int8", "int8")) == pytest.approx(row["cost"], rel=1e-4)
    assert measured.cost_of("dense", ("int8", "int8")) == pytest.approx(row["cost"], rel=1e-4)
    assert replace(measured.rule("conv2d"), cost={}) == load_target(tmp_path / "chip.toml").rule("conv2d")


@given(least=st.floats(0.1, 10), each=st.floats(-1e-4, 1e-4))
def test_what_all_models_take_cancels(least: float, each: float) -> None:
    """Whatever a sample takes to read; less than nothing where times are noise."""
    shape = Shape(16, 12, 3)
    few, many = (Latency.of([least + n * each], "ms", "a board") for n in (FEW, MANY))
    assert per_product(few, many, shape) == pytest.approx(1e6 * each / shape.macs, abs=1e-6)


@pytest.mark.parametrize("kind", SHAPES)
def test_layers_have_the_products_that_costs_are_divided_by(kind: str) -> None:
    shape = SHAPES[kind]
    module = read_model(network(shape, 3), {}).module
    assert float_macs(module) == 3 * shape.macs


@settings(max_examples=5, deadline=None)
@given(costs=st.dictionaries(st.sampled_from([*SHAPES]), st.floats(1e-3, 1e3), min_size=1))
def test_what_is_written_is_read(costs: dict[str, float], tmp_path_factory: pytest.TempPathFactory) -> None:
    target = load_target("x86-64-avx2")
    file = tmp_path_factory.mktemp("written") / "measured.toml"
    rows = [Cost(op, "int8", value, "ns", "a board") for op, value in costs.items()]
    file.write_text(descriptor("x86-64-avx2", target, rows))
    read = load_target(file, trust=True)
    for op, value in costs.items():
        assert read.cost_of(op, ("int8", "int8")) == pytest.approx(value, rel=1e-5)
    assert read.cost["int8"] == pytest.approx(costs.get("conv2d", next(iter(costs.values()))), rel=1e-5)


def test_a_file_of_somebody_else_is_left_alone(hwptq: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(CHIP)
    outcome = hwptq("targets", "measure", "x86-64-avx2", "--output", file)
    assert outcome.code == 2
    assert "no file of hwptq targets measure" in outcome.stderr
    assert file.read_text() == CHIP


def test_a_missing_folder_is_told_before_anything_is_measured(hwptq: Any, tmp_path: Path) -> None:
    outcome = hwptq("targets", "measure", "x86-64-avx2", "--output", tmp_path / "missing" / "chip.toml")
    assert outcome.code == 2
    assert "its folder is missing" in outcome.stderr


def test_what_was_measured_before_may_be_replaced(tmp_path: Path) -> None:
    file = tmp_path / "chip.toml"
    file.write_text(
        descriptor("x86-64-avx2", load_target("x86-64-avx2"), [Cost("dense", "int8", 1, "ns", "it")])
    )
    cost_measurement.check_writable(file)
