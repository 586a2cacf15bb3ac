"""Recipes: which steps a quantization takes beside rounding to nearest, as named sets with switches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from .errors import InputError
from .quant.layer_rounding import METHODS
from .quant.observers import OBSERVERS

#: How a weight becomes an integer; all but "nearest" settle the biases too.
ROUNDINGS = METHODS
#: "auto" equalizes where weights have one scale for all channels. With a scale each they gain nothing, and
#: activations of which some channels become small lose accuracy.
EQUALIZE = ("on", "off", "auto")
_VALUES: dict[str, tuple[str, ...]] = {
    "equalize": EQUALIZE,
    "observer": tuple(OBSERVERS),
    "rounding": ROUNDINGS,
}
_SWITCH = {"on": True, "off": False}


@dataclass(frozen=True)
class Recipe:
    """The steps of a quantization; each can be switched by itself, see `adjusted`."""

    smooth: bool = False  # passes/smooth_activations.py
    equalize: str = "off"  # passes/equalize_cross_layer.py
    absorb: bool = False  # passes/absorb_high_bias.py
    observer: str = "minmax"  # quant/observers.py
    rounding: str = "nearest"  # passes/round_weights.py
    correct_bias: bool = False  # passes/correct_bias.py, where the rounding does not settle the biases

    def __post_init__(self) -> None:
        for field in fields(self):
            known, value = _VALUES.get(field.name, (True, False)), getattr(self, field.name)
            if value not in known:
                raise InputError(f"{field.name} = {value}: give {_listed(_VALUES.get(field.name, _SWITCH))}")

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
            known: Any = _VALUES.get(name, _SWITCH)
            if value not in known:
                raise InputError(f"--set {setting}: give {name}={_listed(known)}")
            changes[name] = value if name in _VALUES else _SWITCH[value]
        return replace(self, **changes)


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


#: The documented sets: docs/accuracy.md says what they do and how long they take.
RECIPES = {
    "fast": Recipe(),
    "default": Recipe(smooth=True, equalize="auto", rounding="descent", correct_bias=True),
    "best": Recipe(smooth=True, equalize="auto", rounding="clamped", correct_bias=True),
}


def recipe(name: str, settings: Iterable[str] = ()) -> Recipe:
    """A recipe by name, with "STEP=VALUE" settings on top. Raises InputError."""
    return Recipe.named(name).adjusted(settings)
