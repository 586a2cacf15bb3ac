"""The file of a sweep: which models, for which targets, by which recipes.

targets = ["x86-64-vnni", "arm-cortex-a"]

[options]                       # of all compilations, as the command line calls them
samples = 200

[[model]]
name = "digits"                 # of its folders
model = "digits.onnx"           # paths are as on the command line
calibration-data = "calibration.npz"
evaluation-data = "evaluation.npz"
preprocess = "preprocess.toml"

[[recipe]]
name = "w8a8"
precision = "w8a8"
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hwptq.errors import InputError, ManyErrors
from hwptq.no_device import check_no_device
from hwptq.options import Options, options_of
from hwptq.recipe import recipe as named_recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_DATA = ("calibration-data", "evaluation-data", "preprocess")
_NUMBER = (int, float)
#: Options that a sweep can set, and the types of their values.
_OPTIONS: dict[str, type | tuple[type, ...]] = {
    "activations": str, "budget": str, "exclude": str, "group": int, "keep-float": str, "lower-ends": bool,
    "max-drop": _NUMBER, "metric": str, "precision": str, "recipe": str, "samples": int, "set": list,
    "strict": bool, "threads": int, "tune": bool, "weight-granularity": str,
}  # fmt: skip
_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Run:
    """One compilation of a sweep; data and preprocess: paths or module:function, None where there is none."""

    model: str
    target: str
    recipe: str
    file: str
    calibration_data: str | None
    evaluation_data: str | None
    preprocess: str | None
    options: Options

    @property
    def folder(self) -> str:
        """Of its output, below that of the sweep."""
        return f"{self.model}/{Path(self.target).stem}/{self.recipe}"


def read_matrix(file: Path) -> list[Run]:
    """The compilations of a file, in its order. Raises InputError, ManyErrors: all mistakes at once."""
    try:
        table = tomllib.loads(check_no_device(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: can't be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{file}: not a TOML file: {error}") from error
    problems: list[str] = []
    models = _tables(table, "model", {"name": str, "model": str, **dict.fromkeys(_DATA, str)}, problems)
    recipes = _tables(table, "recipe", {"name": str, **_OPTIONS}, problems)
    _check_keys(table, ("targets", "options", "model", "recipe"), "", problems)
    shared = table.get("options", {})
    _check_values(shared if isinstance(shared, dict) else {}, _OPTIONS, "options", problems)
    targets = table.get("targets", [])
    if not isinstance(targets, list) or not targets or not all(isinstance(t, str) for t in targets):
        problems.append("targets: give a list of names or files of targets")
    if problems:
        raise ManyErrors(f"{file}: {problem}" for problem in problems)
    return [_run(m, t, r, shared) for m in models for t in targets for r in recipes]


def _run(model: Mapping[str, Any], target: str, recipe: Mapping[str, Any], shared: Mapping[str, Any]) -> Run:
    words = {**shared, **{k: v for k, v in recipe.items() if k != "name"}}
    settings = words.pop("set", [])
    words["recipe"] = named_recipe(words.pop("recipe", "default"), settings)
    options = options_of(None, **{key.replace("-", "_"): value for key, value in words.items()})
    calibration, evaluation, preprocess = (model.get(key) for key in _DATA)
    return Run(
        model["name"], target, recipe["name"], model["model"], calibration, evaluation, preprocess, options
    )


def _tables(
    table: Mapping[str, Any], key: str, known: Mapping[str, Any], problems: list[str]
) -> list[dict[str, Any]]:  # fmt: skip
    """The tables [[key]], each with a name of its own."""
    rows = table.get(key, [])
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        problems.append(f"{key}: give one or more [[{key}]]")
        return []
    for number, row in enumerate(rows):
        where = f"{key}[{number}]"
        _check_values(row, known, where, problems)
        for needed in ("name", "model") if key == "model" else ("name",):
            if needed not in row:
                problems.append(f"{where}: give its {needed}")
        if not _NAME.fullmatch(str(row.get("name", "x"))):
            problems.append(f"{where}.name: letters, digits, '.', '-' and '_' only")
    names = [row.get("name") for row in rows]
    problems += [f"{key}: two are called {name!r}" for name in set(names) if names.count(name) > 1]
    return rows


def _check_values(
    row: Mapping[str, Any], known: Mapping[str, Any], where: str, problems: list[str]
) -> None:  # fmt: skip
    _check_keys(row, known, f"{where}.", problems)
    for key, value in row.items():
        wanted = known.get(key)
        if wanted is None:
            continue
        fits = isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
        if not fits:
            name = "number" if wanted == _NUMBER else wanted.__name__
            problems.append(f"{where}.{key}: {value!r} is no {name}")


def _check_keys(row: Mapping[str, Any], known: Any, where: str, problems: list[str]) -> None:
    for key in row:
        if key not in known:
            near = get_close_matches(key, list(known), 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            problems.append(f"{where}{key}: no such key; {hint}")
