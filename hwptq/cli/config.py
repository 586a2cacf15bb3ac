"""Options from a TOML file: `threads = 4` is --threads 4. What the command line says wins."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer

from hwptq.errors import InputError
from hwptq.no_device import check_no_device

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_OURSELVES = ("config", "help")


def read_config(context: typer.Context, file: Path | None) -> Path | None:
    """Make the values of a file those that the command's options have if nobody says a word.

    Keys are the names of options without their dashes in front, or of arguments in lower case, such as
    model. Raises InputError for a file that can't be read, a key that is none of them, and a list where
    there is but one value.
    """
    if file is not None and not context.resilient_parsing:
        context.default_map = {**(context.default_map or {}), **_values(context, file)}
    return file


def _values(context: typer.Context, file: Path) -> dict[str, Any]:
    known = _known(context)
    found, problems = {}, []
    for key, value in _table(file).items():
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            problems.append(f"{key}: {context.command.name} has no such option; {hint}")
            continue
        parameter = known[key]
        many = parameter.multiple or parameter.nargs != 1
        if isinstance(value, dict) or (isinstance(value, list) and not many):
            problems.append(f"{key}: give one value")
            continue
        found[parameter.name] = [value] if many and not isinstance(value, list) else value
    if problems:
        raise InputError(f"{file}: {'; '.join(problems)}")
    return found


def _known(context: typer.Context) -> dict[str, Any]:
    """Parameters by what a file calls them."""
    found: dict[str, Any] = {}
    for parameter in context.command.params:
        words = [word[2:] for word in parameter.opts if word.startswith("--")] or [parameter.name]
        found |= {word: parameter for word in words if word not in _OURSELVES}
    return found


def _table(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(check_no_device(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: can't read the options: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{file}: not a TOML file: {error}") from error
