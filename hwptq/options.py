"""What a user may ask of a compilation beside model, target and data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from .bitwidths.budget import ARENA, Budget, parse_budget
from .errors import InputError
from .quant.group_codes import SIZES
from .recipe import RECIPES, Recipe

if TYPE_CHECKING:
    from typing_extensions import Unpack

#: (outputs, labels) -> score, higher is better. outputs: one array [N, …] for each output of the model, N the
#: number of samples; labels: array [N], or None where a sample has none.
Metric = Callable[[list[np.ndarray], "np.ndarray | None"], float]
#: Whether scales of activations come from calibration, or are found for each row when it is computed.
ACTIVATIONS = ("static", "dynamic")
#: What caches hold in the program; or they are inputs and outputs, as in the file.
OUTSIDE = "outside"
KV_CACHES = ("float32", "int8", OUTSIDE)
GRANULARITIES = ("tensor", "channel", "group")
_MOST_THREADS = 16
_LEAST_PROMPT = 2


@dataclass(frozen=True)
class Options:
    """How to quantize and what to insist on.

    `budget` and `recipe` may be given as the command line has them ("weights=0.8x", "best").
    Raises InputError for a value that means nothing.
    """

    weight_granularity: str | None = None  # "tensor" | "channel" | "group"; None = the descriptor's
    group: int | None = None  # weights that share a scale, where they have one for each group
    activations: str = "static"  # "dynamic": dense layers alone, a scale for each token
    precision: str | None = None  # "w8a8", "w4a8" …: the dtypes of every layer that can have them
    budget: Budget | None = None  # what the choice of dtypes may cost
    exclude: str | None = None  # regular expression of layers that keep the highest precision offered
    keep_float: str | None = None  # regular expression of node names that stay in float
    partner: Path | None = None  # .npy of the other tower's embeddings: what pairs lose decides
    lower_ends: bool = False  # `precision`, or a search for max_drop: of first and last layers too
    axes: Mapping[str, int] = field(default_factory=dict)  # sizes of symbolic axes of the inputs, by name
    fixed: Mapping[str, float] = field(default_factory=dict)  # inputs that always have that value, by name
    max_drop: float | None = None  # points of accuracy that may be lost
    validation_data: Any = None  # what a search for max_drop measures on; None = the evaluation data
    samples: int | None = None  # evaluate the first N samples only
    metric: str | Metric | None = None  # a name of hwptq.metrics | "module:function" | a function
    strict: bool = False  # a warning is an error
    profile: bool = False  # measure what each layer costs when the code runs, for the report
    isolate: bool = False  # measure every layer quantized alone too, for the report
    trust_descriptor: bool = False
    executor: str | None = None  # what runs the code to verify it; None = a process of its own
    threads: int = 1  # the most threads that the emitted code can use
    dump_ir: Path | None = None  # a folder for the module after each pass
    prompt: int | None = None  # tokens that a step of a language model has a function for, to read at once
    kv_cache: str = "float32"  # what a step of a language model keeps in the program, or "outside" of it
    tune: bool = False  # try a few tiles for each layer shape
    tune_cache: Path | None = None  # where what they measured is kept; None = the user's cache
    cluster: str | None = None  # local:N or tcp://HOST:PORT: who computes; None = this process
    cache: bool = False  # take results of earlier compilations from the user's cache, and keep them there
    recipe: Recipe = RECIPES["default"]  # the steps of the quantization
    command: tuple[str, ...] = ()  # the command line, for the report

    @property
    def dtype_budget(self) -> Budget | None:
        """The budget, where a choice of dtypes can keep it."""
        return None if self.budget and self.budget.kind == ARENA else self.budget

    def __post_init__(self) -> None:
        self._parse("budget", str, parse_budget)
        self._parse("recipe", str, Recipe.named)
        self._parse("tune_cache", str, Path)
        self._parse("dump_ir", str, Path)
        self._parse("partner", str, Path)
        if self.weight_granularity not in (None, *GRANULARITIES):
            raise InputError(f"--weight-granularity {self.weight_granularity}: give tensor, channel or group")
        least, most = SIZES
        if self.group is not None and not least <= self.group <= most:
            raise InputError(f"--group {self.group}: must be {least} to {most}")
        if self.activations not in ACTIVATIONS:
            raise InputError(f"--activations {self.activations}: give static or dynamic")
        if self.kv_cache not in KV_CACHES:
            raise InputError(
                f"--kv-cache {self.kv_cache}: give {', '.join(KV_CACHES[:-1])} or {KV_CACHES[-1]}"
            )
        if self.prompt is not None and self.prompt < _LEAST_PROMPT:
            raise InputError(f"--prompt {self.prompt}: must be {_LEAST_PROMPT} or more tokens")
        if self.prompt is not None and self.kv_cache == OUTSIDE:
            raise InputError("--prompt writes caches that live in the program: leave --kv-cache outside out")
        for option, value in (("--exclude", self.exclude), ("--keep-float", self.keep_float)):
            _check_pattern(option, value)
        for name, size in self.axes.items():
            if size < 1:
                raise InputError(f"--axis {name}={size}: must be 1 or more")
        if self.samples is not None and self.samples < 1:
            raise InputError(f"--samples {self.samples}: must be 1 or more")
        if not 1 <= self.threads <= _MOST_THREADS:
            raise InputError(f"--threads {self.threads}: must be 1 to {_MOST_THREADS}")

    def _parse(self, name: str, given: type, parse: Callable[[Any], Any]) -> None:
        value = getattr(self, name)
        if isinstance(value, given):
            object.__setattr__(self, name, parse(value))  # as a frozen dataclass sets its fields


class OptionWords(TypedDict, total=False):
    """The fields of Options as keywords, with the forms in which they may be given."""

    weight_granularity: str | None
    group: int | None
    activations: str
    precision: str | None
    budget: Budget | str | None
    exclude: str | None
    keep_float: str | None
    partner: Path | str | None
    lower_ends: bool
    axes: Mapping[str, int]
    fixed: Mapping[str, float]
    max_drop: float | None
    validation_data: Any
    samples: int | None
    metric: str | Metric | None
    strict: bool
    profile: bool
    isolate: bool
    executor: str | None
    trust_descriptor: bool
    threads: int
    dump_ir: Path | str | None
    prompt: int | None
    kv_cache: str
    tune: bool
    tune_cache: Path | str | None
    cluster: str | None
    cache: bool
    recipe: Recipe | str
    command: tuple[str, ...]


def options_of(options: Options | None, **words: Unpack[OptionWords]) -> Options:
    """`options` with some of them given as keywords. Raises TypeError for a keyword that is none of them."""
    known = [f.name for f in fields(Options)]
    for word in words:
        if word not in known:
            near = get_close_matches(word, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {_listed(known)}"
            raise TypeError(f"unknown option {word!r}; {hint}")
    return replace(options or Options(), **words)  # type: ignore[arg-type]


def _check_pattern(option: str, value: str | None) -> None:
    try:
        re.compile(value or "")
    except re.error as error:
        raise InputError(f"{option} {value}: not a regular expression: {error}") from error


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
