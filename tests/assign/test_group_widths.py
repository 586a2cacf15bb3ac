"""--budget bits=…: the exact optimum over formats and groups of weights, and the code that comes of it."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

import hwptq
from hwptq.bitwidths.budget import parse_budget
from hwptq.errors import BudgetError, InputError
from hwptq.forecast import plan
from hwptq.recipe import RECIPES
from hwptq.search.group_widths import GroupCandidate, GroupWidths, WeightChoices, chosen_within
from hwptq.targets import load_target

op, nn = relax.op, relax.op.nn
TARGET = "x86-64-avx2"
WORDS, WIDTH, INNER, TOKENS = 48, 64, 128, 6


def language_model() -> tvm.IRModule:
    """A table that is the head too, and two gated blocks of which the first is far the louder."""

    def weight(seed: int, *shape: int, size: float = 1.0) -> Any:
        values = np.random.default_rng(seed).normal(size=shape) * size / np.sqrt(shape[0])
        return relax.const(values.astype(np.float32))

    table = np.random.default_rng(0).normal(size=(WORDS, WIDTH)).astype(np.float32)
    ids, builder = relax.Var("ids", relax.TensorType((1, TOKENS), "int64")), relax.BlockBuilder()
    emit = builder.emit
    with builder.function("main", [ids]):
        with builder.dataflow():
            x = emit(op.take(relax.const(table), ids, axis=0))
            for block, size in enumerate((3.0, 0.05)):
                up = emit(nn.relu(emit(op.matmul(x, weight(10 + block, WIDTH, INNER)))))
                x = emit(op.add(x, emit(op.matmul(up, weight(20 + block, INNER, WIDTH, size=size)))))
            out = builder.emit_output(op.matmul(x, relax.const(np.ascontiguousarray(table.T))))
        builder.emit_func_output(out)
    return builder.get()


def texts(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"ids": rng.integers(0, WORDS, (1, TOKENS))} for _ in range(count)]


WORDS_OF_OPTIONS: dict[str, Any] = {"activations": "dynamic", "weight_granularity": "group"}


def compiled(folder: Path, budget: str, recipe: str = "fast", **options: Any) -> dict[str, Any]:
    words = {**WORDS_OF_OPTIONS, "recipe": RECIPES[recipe], "cache": False, **options}
    model = hwptq.compile(
        language_model(), TARGET, texts(16), texts(3, 1), output=folder / "out", budget=budget, **words
    )
    return model.report


def bits_of(report: dict[str, Any]) -> float:
    """Of a weight, by the constants that the code reads; the table is the head's."""
    rows = report["bits"]
    return 8 * sum(r["weight_bytes"] for r in rows) / sum(r["macs"] // TOKENS for r in rows)


@pytest.mark.parametrize(
    ("budget", "recipe"), [("bits=4.6", "fast"), ("bits=3.2", "fast"), ("bits=3", "best")]
)
def test_the_code_has_no_more_bits_a_weight(budget: str, recipe: str, tmp_path: Path) -> None:
    report = compiled(tmp_path, budget, recipe)
    found = report["assignment"]["bits"]
    assert found["asked"] == parse_budget(budget).value
    assert found["stored"] == pytest.approx(bits_of(report))
    assert 0.8 * found["asked"] < found["stored"] <= found["asked"]
    assert report["bit_exact"]["mismatches"] == 0
    assert report["bit_exact"]["values"] > 0
    formats = {row["name"]: row["weight"] for row in report["assignment"]["layers"]}
    assert len(set(formats.values())) > 1
    assert {row["name"]: row["weight"] for row in report["bits"]} == formats
    assert json.loads((tmp_path / "out" / "metadata.json").read_text())["bits"] == found


def test_what_is_louder_has_more_bits(tmp_path: Path) -> None:
    rows = compiled(tmp_path, "bits=4")["assignment"]["layers"]
    _, _, loud, _, quiet = (row["bits"] for row in rows)
    assert loud > quiet


def test_groups_are_as_asked(tmp_path: Path) -> None:
    report = compiled(tmp_path, "bits=4", group=64)
    assert {row["group"] for row in report["assignment"]["layers"]} == {64}


def test_what_is_excluded_keeps_the_highest_precision_and_float_counts_in_full(tmp_path: Path) -> None:
    names = [row["name"] for row in compiled(tmp_path, "bits=4")["assignment"]["layers"]]
    kept = compiled(tmp_path, "bits=7", exclude=f"^{names[1]}$")["assignment"]["layers"]
    assert {r["name"]: (r["weight"], r["kept"]) for r in kept}[names[1]] == ("int8", "excluded by the user")
    with pytest.raises(BudgetError, match="can't be held"):
        compiled(tmp_path, "bits=4", keep_float=f"^{names[1]}$")


def test_too_few_bits_are_exit_code_4_and_the_least_is_named(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"smallest that can is bits=(\d\.\d+)") as caught:
        compiled(tmp_path, "bits=1.5")
    assert caught.value.exit_code == 4
    least = str(caught.value).rpartition(" is ")[2]
    found = compiled(tmp_path, least)["assignment"]["bits"]
    assert found["stored"] <= parse_budget(least).value


def test_a_dry_run_tells_the_choice() -> None:
    words = {**WORDS_OF_OPTIONS, "recipe": RECIPES["fast"], "cache": False}
    found = plan(language_model(), TARGET, texts(16), budget="bits=4", **words)
    assert found["predicted"]["bits"] <= 4
    assert found["sensitivity"] == "noise"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"budget": "weights=0.5x"}, "for --budget bits=… with --weight-granularity group alone"),
        ({"budget": "bits=4", "weight_granularity": "channel"}, "with --weight-granularity group alone"),
        ({"budget": "bits=4", "precision": "w4a8"}, "give one of the two"),
        ({"budget": "bits=4", "lower_ends": True}, "a budget is for all layers"),
        ({"exclude": "up"}, "no choice of dtypes by layer without --budget"),
    ],
)
def test_contradictions_are_one_line(words: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        hwptq.compile(language_model(), TARGET, texts(2), **{**WORDS_OF_OPTIONS, **words})


def test_losses_need_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give calibration data"):
        hwptq.compile(language_model(), TARGET, output=tmp_path / "out", budget="bits=4", **WORDS_OF_OPTIONS)


@st.composite
def choices(draw: st.DrawFn) -> tuple[tuple[WeightChoices, ...], int, float]:
    """Up to 5 weights of 1 to 5 formats, some left in float, and a budget from too little to enough."""
    weights = []
    for number in range(draw(st.integers(1, 5))):
        count = draw(st.integers(1, 40)) * 32
        bits = draw(st.lists(st.sampled_from([2.25, 2.5, 3.5, 4.25, 4.5, 8.5]), min_size=1, unique=True))
        found = [
            GroupCandidate("int8", f"f{i}", b * count, draw(st.integers(0, 1000)) / 1000, 32)
            for i, b in enumerate(bits)
        ]
        weights.append(WeightChoices((f"w{number}",), count, count, None, tuple(found)))
    return tuple(weights), draw(st.integers(0, 64)), draw(st.integers(8, 40)) / 4


@settings(max_examples=80, deadline=None)
@given(choices())
def test_equals_the_best_of_all_choices(problem: tuple[tuple[WeightChoices, ...], int, float]) -> None:
    weights, fixed, asked = problem
    budget = parse_budget(f"bits={asked}")
    count = sum(w.count for w in weights) + fixed
    every = list(product(*(w.candidates for w in weights)))
    bits = [(sum(c.cost for c in each) + 32 * fixed) / count for each in every]
    fitting = [sum(c.sensitivity for c in each) for each, b in zip(every, bits, strict=True) if b <= asked]
    if not fitting:
        with pytest.raises(BudgetError) as caught:
            chosen_within(weights, fixed, budget)
        least = parse_budget(str(caught.value).rpartition(" is ")[2]).value
        assert min(bits) <= least <= min(bits) + 1e-3
        return
    found = GroupWidths(budget, weights, fixed, chosen_within(weights, fixed, budget), "noise")
    assert sum(c.sensitivity for c in found.chosen.values()) == pytest.approx(min(fitting), abs=1e-9)
    assert found.bits()["stored"] <= asked + 1e-9


def test_a_target_without_such_weights_is_refused() -> None:
    assert load_target("hexagon-v66-npu").rule("group_dense") is None
    with pytest.raises(InputError, match="offers no weights with a scale for each group"):
        hwptq.compile(language_model(), "hexagon-v66-npu", texts(2), budget="bits=4", **WORDS_OF_OPTIONS)
