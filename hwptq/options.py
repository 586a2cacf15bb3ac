"""What a user may ask of a compilation beside model, target and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .bitwidths.budget import Budget
from .recipe import RECIPES, Recipe


@dataclass(frozen=True)
class Options:
    """How to quantize and what to insist on."""

    weight_granularity: str | None = None  # "tensor" | "channel" | "group"; None = the descriptor's
    precision: str | None = None  # "w8a8", "w4a8" …: the dtypes of every layer that can have them
    budget: Budget | None = None  # what the choice of dtypes may cost
    exclude: str | None = None  # regular expression of layers that keep the highest precision offered
    keep_float: str | None = None  # regular expression of node names that stay in float
    lower_ends: bool = False  # `precision`, or a search for max_drop: of first and last layers too
    axes: Mapping[str, int] = field(default_factory=dict)  # sizes of symbolic axes of the inputs, by name
    max_drop: float | None = None  # points of accuracy that may be lost
    samples: int | None = None  # evaluate the first N samples only
    metric: str | None = None  # "top1" | "module:function"
    strict: bool = False  # a warning is an error
    trust_descriptor: bool = False
    threads: int = 1  # the most threads that the emitted code can use
    tune: bool = False  # try a few tiles for each layer shape
    tune_cache: Path | None = None  # where what they measured is kept; None = the user's cache
    recipe: Recipe = RECIPES["default"]  # the steps of the quantization
