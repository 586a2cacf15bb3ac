"""Options: the words of compile, in the forms in which a user may give them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import hwptq
from hwptq.options import Options, OptionWords, options_of
from hwptq.recipe import RECIPES, Recipe


def test_words_are_parsed_as_on_the_command_line():
    found = options_of(None, budget="weights=0.8x", recipe="best", tune_cache="/tiles")
    assert found.budget == hwptq.parse_budget("weights=0.8x")
    assert found.recipe == RECIPES["best"]
    assert found.tune_cache == Path("/tiles")
    assert Options(budget="weights=0.8x").budget == found.budget  # type: ignore[arg-type]


def test_words_change_the_options_they_are_given_beside():
    found = options_of(Options(precision="w4a8", samples=3), samples=5)
    assert (found.precision, found.samples) == ("w4a8", 5)


def test_every_option_is_a_word():
    assert set(OptionWords.__annotations__) == {f.name for f in fields(Options)}


@pytest.mark.parametrize(
    ("word", "said"),
    [("precison", "unknown option 'precison'; did you mean 'precision'"), ("zzz", "there are weight_gran")],
)
def test_an_unknown_word_names_the_near_one(word: str, said: str):
    with pytest.raises(TypeError, match=said):
        hwptq.compile("m.onnx", "x86-64-avx2", **{word: 1})  # type: ignore[misc]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"budget": "much"}, "--budget much: give weights=400kB"),
        ({"recipe": "slow"}, "--recipe slow: give fast, default or best"),
        ({"exclude": "("}, "--exclude .*: not a regular expression"),
        ({"weight_granularity": "layer"}, "give tensor, channel or group"),
        ({"samples": 0}, "--samples 0: must be 1 or more"),
        ({"threads": 0}, "--threads 0: must be 1 to 16"),
        ({"axes": {"n": 0}}, "--axis n=0: must be 1 or more"),
    ],
)
def test_a_value_that_means_nothing_says_what_to_give(words: dict[str, Any], said: str):
    with pytest.raises(hwptq.InputError, match=said):
        Options(**words)


def test_a_recipe_by_name_with_other_steps():
    assert Recipe.named("default", equalize="off") == Recipe(
        smooth=True, widen=True, observer="auto", rounding="descent", correct_bias=True
    )
    with pytest.raises(hwptq.InputError, match="equalize = sideways"):
        Recipe.named("default", equalize="sideways")
