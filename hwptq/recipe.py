"""Recipes: which steps a quantization takes beside rounding to nearest, as named sets with switches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from .errors import InputError
from .quant.layer_rounding import METHODS
from .quant.observers import OBSERVERS

#: "auto" equalizes where weights have one scale for all channels. With a scale each they gain nothing, and
#: activations of which some channels become small lose accuracy.
EQUALIZE = ("on", "off", "auto")
_SWITCH = {"on": True, "off": False}


def _words(step: str) -> tuple[str, ...]:
    """What a step can be set to where it is no switch: the methods that are known by now."""
    return {"equalize": EQUALIZE, "observer": tuple(OBSERVERS), "rounding": tuple(METHODS)}.get(step, ())


@dataclass(frozen=True)
class Recipe:
    """The steps of a quantization; each can be switched by itself, see `adjusted`."""

    smooth: bool = False  # passes/smooth_activations.py
    equalize: str = "off"  # passes/equalize_cross_layer.py
    absorb: bool = False  # passes/absorb_high_bias.py
    depthwise: bool = False  # passes/equalize_depthwise.py
    widen: bool = False  # passes/widen_activations.py
    observer: str = "minmax"  # quant/observers.py
    rounding: str = "nearest"  # passes/round_weights.py; all others settle the biases too
    blocks: bool = False  # passes/reconstruct_blocks.py, of weights by group
    outputs: bool = False  # passes/match_outputs.py, of weights by group
    correct_bias: bool = False  # passes/correct_bias.py, where the rounding does not settle the biases

    def __post_init__(self) -> None:
        for field in fields(self):
            words, value = _words(field.name), getattr(self, field.name)
            if value not in (words or (True, False)):
                raise InputError(f"{field.name} = {value}: give {_listed(words or _SWITCH)}")

    @classmethod
    def named(cls, name: str, **steps: Any) -> Recipe:
        """One of RECIPES, some of its steps changed: Recipe.named("default", equalize="off").

        Raises InputError for an unknown name or value, TypeError for an unknown step.
        """
        if name not in RECIPES:
            raise InputError(f"--recipe {name}: give {_listed(RECIPES)}")
        return replace(RECIPES[name], **steps)

    def adjusted(self, settings: Iterable[str]) -> Recipe:
        """The recipe after "STEP=VALUE" settings, such as "rounding=nearest".

        Raises InputError for an unknown step or value.
        """
        names = [f.name for f in fields(self)]
        changes: dict[str, Any] = {}
        for setting in settings:
            name, _, value = setting.partition("=")
            if name not in names:
                raise InputError(f"--set {setting}: no step {name!r}; give {_listed(names)}")
            words = _words(name)
            if value not in (words or _SWITCH):
                raise InputError(f"--set {setting}: give {name}={_listed(words or _SWITCH)}")
            changes[name] = value if words else _SWITCH[value]
        return replace(self, **changes)


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


#: The documented sets: docs/accuracy.md says what they do and how long they take.
RECIPES = {
    "fast": Recipe(),
    "default": Recipe(
        smooth=True, equalize="auto", widen=True, observer="auto", rounding="descent", correct_bias=True
    ),
    "best": Recipe(
        smooth=True,
        equalize="auto",
        widen=True,
        observer="auto",
        rounding="clamped",
        blocks=True,
        outputs=True,
        correct_bias=True,
    ),
}


def recipe(name: str, settings: Iterable[str] = ()) -> Recipe:
    """A recipe by name, with "STEP=VALUE" settings on top. Raises InputError."""
    return Recipe.named(name).adjusted(settings)
