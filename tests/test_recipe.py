"""Recipes: named sets of steps, and switches for each."""

from __future__ import annotations

import pytest

from hwptq.errors import InputError
from hwptq.recipe import RECIPES, Recipe, recipe


@pytest.mark.parametrize("name", ["fast", "default", "best"])
def test_named_recipes_exist(name):
    assert recipe(name) == RECIPES[name]


def test_a_setting_changes_one_step():
    changed = recipe("best", ["rounding=nearest"])
    assert changed.rounding == "nearest"
    assert changed.observer == RECIPES["best"].observer


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("rounding=sideways", "give rounding=nearest"),
        ("speed=on", "no step 'speed'; give smooth"),
        ("rounding", "give rounding=nearest"),
    ],
)
def test_a_wrong_setting_says_what_to_give(setting, said):
    with pytest.raises(InputError, match=said):
        recipe("default", [setting])


def test_an_unknown_recipe_is_refused():
    with pytest.raises(InputError, match="--recipe slow: give fast, default or best"):
        recipe("slow")


def test_a_recipe_made_in_python_is_checked():
    with pytest.raises(InputError, match="observer = median"):
        Recipe(observer="median")
