"""Bit widths from end to end: the demo with --precision, --budget, --max-drop, --exclude and --dry-run."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import hwptq
from hwptq.bitwidths.budget import Budget, parse_budget
from hwptq.cli.main import app
from hwptq.cli.session import Session
from hwptq.data.dataset import open_dataset
from hwptq.data.preprocess import load_preprocess
from hwptq.errors import AccuracyError, BudgetError, InputError, UnsupportedError
from hwptq.forecast import plan
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.pipeline.stages import prepare
from hwptq.pipeline.step import Job
from hwptq.progress import Progress
from hwptq.recipe import RECIPES
from hwptq.search import drop_search, trial
from hwptq.search.choose import Chooser
from hwptq.targets import load_target

DEMO = Path(__file__).parents[2] / "examples" / "digits"
TARGET = "x86-64-avx2"
MODEL, CALIBRATION, EVALUATION, PREPROCESS = (
    str(DEMO / name) for name in ("digits.onnx", "calibration.npz", "evaluation.npz", "preprocess.toml")
)


def compiled(folder: Path, samples: int | None = 60, **options: Any) -> dict[str, Any]:
    """The report of the demo compiled with these options."""
    chosen = hwptq.Options(samples=samples, recipe=RECIPES["fast"], **options)
    return hwptq.compile(MODEL, TARGET, CALIBRATION, EVALUATION, PREPROCESS, folder / "out", chosen).report


def planned(target: str = TARGET, **options: Any) -> dict[str, Any]:
    chosen = hwptq.Options(recipe=RECIPES["fast"], **options)
    return plan(MODEL, target, CALIBRATION, PREPROCESS, chosen)


def weights_of(found: dict[str, Any]) -> dict[str, str]:
    return {row["name"]: row["weight"] for row in found["layers"]}


@pytest.fixture(scope="module")
def by_default() -> dict[str, Any]:
    return planned()


def test_by_default_all_layers_have_the_first_dtypes(by_default: dict[str, Any], tmp_path: Path) -> None:
    assert set(weights_of(by_default).values()) == {"int8"}
    assert by_default["predicted"] == by_default["highest_precision"] | {
        "macs-int4": by_default["highest_precision"]["macs-int4"]
    }
    report = compiled(tmp_path, 4)
    assert report["assignment"] is None
    assert report["weight_bytes"]["quantized"] <= by_default["predicted"]["weights"]


@pytest.mark.parametrize("share", [0.8, 0.95])
def test_a_budget_holds_on_the_bytes_of_the_artefact(
    share: float, by_default: dict[str, Any], tmp_path: Path
) -> None:
    limit = int(share * by_default["highest_precision"]["weights"])
    report = compiled(tmp_path, budget=parse_budget(f"weights={limit}B"))
    found = report["assignment"]
    held = report["weight_bytes"]["quantized"]
    assert _weights_in_object_file(tmp_path / "out") == held + 1  # a zero byte ends them
    assert held == found["weight_bytes"] <= found["predicted"]["weights"] <= limit
    assert {row["name"]: row["weight"] for row in report["bits"]} == weights_of(found)
    assert set(weights_of(found).values()) == {"int8", "int4"}
    assert report["bit_exact"]["mismatches"] == 0


def _weights_in_object_file(folder: Path) -> int:
    """Bytes of .rodata from the symbol of the constants on."""
    obj, dump = folder / "digits.o", folder / "rodata"
    table = subprocess.run(["objdump", "-t", obj], capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in table.splitlines() if line.endswith("digits_weights")]
    subprocess.run(["objcopy", "-O", "binary", "-j", ".rodata", obj, dump], check=True)
    return dump.stat().st_size - int(line.split()[0], 16)


def test_bits_hold_with_all_that_layers_store(by_default: dict[str, Any], tmp_path: Path) -> None:
    limit = round(0.85 * by_default["predicted"]["bits"], 2)
    report = compiled(tmp_path, 4, budget=parse_budget(f"bits={limit}"))
    found = report["assignment"]
    weights = sum(row["weights"] for row in found["layers"])
    stored = 8 * sum(row["weight_bytes"] for row in found["layers"]) / weights
    assert found["bits"]["stored"] == pytest.approx(stored)
    assert stored <= limit
    assert set(weights_of(found).values()) == {"int8", "int4"}
    assert 8 * report["weight_bytes"]["quantized"] / weights >= stored  # there is more than weights
    with pytest.raises(BudgetError, match=r"smallest that can is bits=(\d+\.\d+)") as caught:
        planned(budget=parse_budget("bits=2"))
    least = parse_budget(str(caught.value).rpartition(" is ")[2])
    assert planned(budget=least)["predicted"]["bits"] <= least.value


def test_an_infeasible_budget_is_exit_code_4_and_names_a_feasible_one(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"smallest that can is weights=(\d+)B") as caught:
        compiled(tmp_path, budget=parse_budget("weights=1kB"))
    assert caught.value.exit_code == 4
    assert not (tmp_path / "out").exists()
    least = str(caught.value).rpartition(" is ")[2]
    assert planned(budget=parse_budget(least))["predicted"]["weights"] <= parse_budget(least).value


@pytest.fixture(scope="module")
def chooser() -> Chooser:
    return _chooser("default")


def _chooser(recipe: str) -> Chooser:
    model = import_onnx(MODEL)
    data = open_dataset(CALIBRATION, model.inputs, load_preprocess(PREPROCESS)).take(16)
    job = Job(load_target(TARGET), data, hwptq.Options(recipe=RECIPES[recipe]))
    return Chooser(prepare(model.module, job), job)


def test_more_budget_is_never_more_sensitive(chooser: Chooser) -> None:
    sums, least = [], chooser.least("weights") / chooser.costs.highest("weights")
    for step in range(7):
        widths = chooser.choose(Budget("weights", least + (1 - least) * step / 6, relative=True))
        assert widths.sensitivity is not None
        values = widths.sensitivity.values  # of layers that have a choice
        sums.append(sum(values[name][pair] for name, pair in widths.pairs.items() if name in values))
    assert sums == sorted(sums, reverse=True)
    assert set(widths.pairs.values()) == {("int8", "int8")}


def test_sensitivity_is_that_of_weights_as_the_recipe_rounds_them(chooser: Chooser) -> None:
    """On the data it was rounded to, a layer loses less than rounded to the nearest."""

    def noise(found: Chooser) -> float:
        measured = found.choose(Budget("weights", 1.0, relative=True)).sensitivity
        assert measured is not None
        return sum(value for pairs in measured.values.values() for value in pairs.values())

    assert noise(chooser) < 0.7 * noise(_chooser("fast"))


def test_macs_int4(chooser: Chooser) -> None:
    pairs = chooser.choose(parse_budget("macs-int4=50%")).pairs
    macs = {
        w: sum(chooser.variants.layers[n].macs for n, p in pairs.items() if p[1] == w)
        for w in ("int4", "int8")
    }
    assert macs["int4"] >= macs["int8"]


def test_precision(tmp_path: Path, by_default: dict[str, Any]) -> None:
    first, *_, last = weights_of(by_default)
    report = compiled(tmp_path, precision="w4a8")
    widths = {row["name"]: row["weight"] for row in report["bits"]}
    assert widths[first] == widths[last] == "int8"
    assert "int4" in widths.values()
    kept = {row["name"]: row["kept"] for row in report["assignment"]["layers"]}
    assert kept[first] == kept[last] == "a first or last layer"
    lowered = weights_of(planned(precision="w4a8", lower_ends=True))
    assert lowered[first] == lowered[last] == "int4"


def test_precision_that_the_target_lacks() -> None:
    with pytest.raises(
        UnsupportedError, match="no layer of the model can have int4 weights with int4"
    ) as caught:
        planned("arm-cortex-a", precision="w4a4")
    assert caught.value.exit_code == 3


def test_excluded_layers_keep_the_highest_precision(by_default: dict[str, Any]) -> None:
    *_, last = weights_of(by_default)
    least = planned(precision="w4a8", lower_ends=True, exclude=f"^{last}$")
    assert weights_of(least)[last] == "int8"
    assert least["layers"][-1]["kept"] == "excluded by the user"


def test_layers_kept_in_float(tmp_path: Path, by_default: dict[str, Any]) -> None:
    *_, last = weights_of(by_default)
    report = compiled(tmp_path, 4, keep_float=f"^{last}$")
    assert {"name": last, "reason": "excluded by the user"}.items() <= report["coverage"]["nodes_float"][
        -1
    ].items()


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drop_search, "STEPS", 4)


@pytest.mark.usefixtures("few_steps")
def test_max_drop_finds_the_cheapest_that_holds_it(tmp_path: Path, by_default: dict[str, Any]) -> None:
    report = compiled(tmp_path, 200, max_drop=1.0)
    accuracy, found = report["accuracy"], report["assignment"]
    assert accuracy["float32"] - accuracy["emitted"] <= 1.0
    assert report["weight_bytes"]["quantized"] < by_default["predicted"]["weights"]
    held = [t["weights"] for t in found["tried"] if t["drop"] <= 1.0]
    assert min(held) == found["predicted"]["weights"]
    assert all(t["weights"] < min(held) for t in found["tried"] if t["drop"] > 1.0)


@pytest.mark.usefixtures("few_steps")
def test_a_search_runs_on_validation_data_and_not_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The samples that the accuracy is measured on decide nothing then; what was tried is known next time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = np.load(EVALUATION)
    parts = {"validation": slice(0, 100), "evaluation": slice(100, 140)}
    for name, part in parts.items():
        np.savez(tmp_path / f"{name}.npz", **{key: whole[key][part] for key in whole.files})
    runs: list[Any] = []
    seen = trial.Trial._run
    monkeypatch.setattr(trial.Trial, "_run", lambda self, widths: runs.append(widths) or seen(self, widths))
    told: list[str] = []

    class Telling(Progress):
        def tell(self, text: str) -> None:
            told.append(text)

    def report() -> dict[str, Any]:
        options = hwptq.Options(
            max_drop=1.0,
            recipe=RECIPES["fast"],
            cache=True,
            validation_data=str(tmp_path / "validation.npz"),
        )
        case = MODEL, TARGET, CALIBRATION, str(tmp_path / "evaluation.npz"), PREPROCESS
        return hwptq.compile(*case, tmp_path / "out", options, Telling()).report

    first, tried = report(), len(runs)
    assert first["accuracy"]["samples"] == 40
    assert first["assignment"]["tried_on"] == "validation"
    assert first["asked"]["data"]["validation"]["sha256"]
    assert tried == len(first["assignment"]["tried"]) == len(told)
    assert all(text.startswith(f"trial {i}: ") for i, text in enumerate(told, 1))
    assert told[-1].endswith("the last")
    assert report()["assignment"] == first["assignment"]
    assert len(runs) == tried


@pytest.mark.usefixtures("few_steps")
def test_max_drop_that_nothing_holds(tmp_path: Path) -> None:
    """The artefact has the highest precision then, and is complete."""
    with pytest.raises(AccuracyError):
        compiled(tmp_path, 20, max_drop=-100.0)
    report = hwptq.load(tmp_path / "out").report
    assert set(weights_of(report["assignment"]).values()) == {"int8"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "w5a8"}, "--precision w5a8: give w8a8, w4a8"),
        ({"precision": "w3a8"}, "--precision w3a8: .* offers it with --weight-granularity group"),
        ({"precision": "w4a8", "budget": parse_budget("cycles=0.8x")}, "give one of the two"),
        ({"lower_ends": True}, "--lower-ends is about --precision or --max-drop"),
        ({"budget": parse_budget("macs-int2=50%")}, "offers no int2 weights"),
        ({"max_drop": 1.0}, "--dry-run emits no code"),
        ({"validation_data": EVALUATION}, "--validation-data is what a search for --max-drop measures on"),
    ],
)
def test_contradictions_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        planned(**options)
    assert "\n" not in str(caught.value)


def test_dry_run_prints_and_writes_nothing(tmp_path: Path) -> None:
    command = ["compile", MODEL, "--target", TARGET, "--calibration-data", CALIBRATION]
    command += ["--preprocess", PREPROCESS, "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*command, "--budget", "macs-int4=50%", "--dry-run"], obj=Session())
    assert result.exit_code == 0, result.output
    assert "of the multiply-accumulates" in result.output
    assert "int4" in result.output
    assert not (tmp_path / "out").exists()
