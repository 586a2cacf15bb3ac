"""A change of a compilation's options: what a remedy consists of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hwptq.options import Options


@dataclass(frozen=True)
class Change:
    """granularity: of weights; precision: as --precision has it; steps: "STEP=VALUE" of the recipe; exclude
    and keep_float: names of layers and nodes, beside those that the options match.
    """

    granularity: str | None = None
    precision: str | None = None
    steps: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    keep_float: tuple[str, ...] = ()

    def __or__(self, other: Change) -> Change:
        """Both; of two granularities or two values of a step, the other's."""
        ours = tuple(s for s in self.steps if _step(s) not in map(_step, other.steps))
        return Change(
            other.granularity or self.granularity,
            other.precision or self.precision,
            ours + other.steps,
            tuple(dict.fromkeys(self.exclude + other.exclude)),
            tuple(dict.fromkeys(self.keep_float + other.keep_float)),
        )

    @property
    def fits_weights(self) -> bool:
        """Whether it is about how weights become integers, which no plan shows."""
        return any(_step(s) in ("rounding", "correct_bias") for s in self.steps)

    @property
    def kind(self) -> str:
        """What changes: changes of a kind are variants of one remedy."""
        named = [("exclude", self.exclude), ("float", self.keep_float), ("granularity", self.granularity)]
        named.append(("precision", self.precision))
        return " ".join([*map(_step, self.steps), *(name for name, value in named if value)])

    def applied(self, options: Options) -> Options:
        """The options with the change."""
        return replace(
            options,
            weight_granularity=self.granularity or options.weight_granularity,
            precision=self.precision or options.precision,
            recipe=options.recipe.adjusted(self.steps),
            exclude=_pattern(options.exclude, self.exclude),
            keep_float=_pattern(options.keep_float, self.keep_float),
        )

    def arguments(self, options: Options) -> list[str]:
        """What the change adds to a command line that says `options`, or replaces there."""
        new, found = self.applied(options), []
        if self.granularity:
            found += ["--weight-granularity", self.granularity]
        if self.precision:
            found += ["--precision", self.precision]
        for step in self.steps:
            name, _, value = step.partition("=")
            found += ["--calibration-method", value] if name == "observer" else ["--set", step]
        if self.exclude:
            found += ["--exclude", str(new.exclude)]
        if self.keep_float:
            found += ["--keep-float", str(new.keep_float)]
        return found


def _step(setting: str) -> str:
    return setting.partition("=")[0]


def _pattern(old: str | None, names: Sequence[str]) -> str | None:
    """A regular expression that matches what `old` does, and these names."""
    if not names:
        return old
    whole = "|".join(map(re.escape, names))
    return "|".join([*([old] if old else []), f"^({whole})$" if len(names) > 1 else f"^{whole}$"])
