"""Tables of a TOML file -> the dataclasses of `schema`, driven by their type annotations."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import typing
from typing import Any

from .fields.about import About
from .fields.problems import Problems, join, show, suggest
from .templates.base import Kernel, tables

MAX_STRING = 200  # characters
MAX_ITEMS = 64  # of a list or a table

#: Stands where a value is missing or wrong; a problem has been noted.
HOLE: Any = None


def about_of(field: dataclasses.Field) -> About:
    """What is known about a field."""
    return field.metadata.get("about") or About(doc="")


def key_of(field: dataclasses.Field) -> str:
    """The field's key in the file: `op` for `ops`."""
    return about_of(field).key or field.name


def is_required(field: dataclasses.Field) -> bool:
    """Whether the file must say it."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def read_fields(cls: type, table: dict[str, Any], path: str, problems: Problems) -> dict[str, Any]:
    """The constructor arguments of `cls` that the table gives, HOLE where one is wrong."""
    fields = {key_of(f): f for f in dataclasses.fields(cls)}
    hints = _hints(cls)
    for key in list(table)[: MAX_ITEMS + len(fields)]:
        if key not in fields:
            problems.add(join(path, key), f"unknown key ({suggest(key, fields)})")
    values = {}
    for key, spec in fields.items():
        where = join(path, key)
        if key in table:
            values[spec.name] = read(table[key], hints[spec.name], about_of(spec), where, problems)
        elif is_required(spec):
            if not problems.below(where):
                problems.add(where, f"missing: {about_of(spec).doc}")
            values[spec.name] = HOLE
    return values


def read(value: Any, kind: Any, about: About, path: str, problems: Problems) -> Any:
    """`value` as the annotated type `kind`; HOLE after noting a problem."""
    origin = typing.get_origin(kind)
    if kind is Kernel:
        return _read_kernel(value, tables(), path, problems)
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(value, typing.cast(type, kind), path, problems)
    if origin is tuple:
        return _read_list(value, typing.get_args(kind), about, path, problems)
    if origin is dict:
        return _read_table(value, typing.get_args(kind)[1], about, path, problems)
    if kind is object:
        return _read_any(value, path, problems)
    return _read_scalar(value, kind, about, path, problems)


def _read_dataclass(value: Any, cls: type, path: str, problems: Problems) -> Any:
    if not isinstance(value, dict):
        problems.add(path, f"must be a table, not {show(value)}")
        return HOLE
    before = len(problems.found)
    values = read_fields(cls, value, path, problems)
    return cls(**values) if len(problems.found) == before else HOLE


def _read_kernel(value: Any, classes: dict[str, type[Kernel]], path: str, problems: Problems) -> Any:
    if not isinstance(value, dict):
        problems.add(path, f"must be a table, not {show(value)}")
        return HOLE
    template = value.get("template")
    if "template" not in value:
        problems.add(join(path, "template"), f"missing: one of {', '.join(classes)}")
    elif not isinstance(template, str) or template not in classes:
        problems.add(
            join(path, "template"), f"unknown template {show(template)} ({suggest(str(template), classes)})"
        )
    else:
        rest = {key: item for key, item in value.items() if key != "template"}
        return _read_dataclass(rest, classes[template], path, problems)
    return HOLE


def _read_list(value: Any, kinds: tuple[Any, ...], about: About, path: str, problems: Problems) -> Any:
    """tuple[X, ...] is a list of any length, tuple[X, Y] one of exactly two elements."""
    repeated = kinds[-1] is Ellipsis
    wanted = "a list" if repeated else f"a list of {len(kinds)}"
    if not isinstance(value, list) or not (repeated or len(value) == len(kinds)):
        problems.add(path, f"must be {wanted}, not {show(value)}")
        return HOLE
    if len(value) > MAX_ITEMS:
        problems.add(path, f"has {len(value)} elements, at most {MAX_ITEMS} are allowed")
        return HOLE
    if repeated and about.not_empty and not value:
        problems.add(path, "must not be empty")
        return HOLE
    inner = dataclasses.replace(about, not_empty=False)
    types_ = [kinds[0]] * len(value) if repeated else kinds
    return tuple(
        read(item, kind, inner, element_path(path, i, item), problems)
        for i, (item, kind) in enumerate(zip(value, types_, strict=True))
    )


def element_path(path: str, index: int, item: Any) -> str:
    """`op[conv2d]` where the element says what it is about, else `pairs[0]`."""
    name = item.get("op") if isinstance(item, dict) else None
    return f"{path}[{join('', name)}]" if isinstance(name, str) and name else f"{path}[{index}]"


def _read_table(value: Any, kind: Any, about: About, path: str, problems: Problems) -> Any:
    if not isinstance(value, dict):
        problems.add(path, f"must be a table, not {show(value)}")
        return HOLE
    if len(value) > MAX_ITEMS:
        problems.add(path, f"has {len(value)} keys, at most {MAX_ITEMS} are allowed")
        return HOLE
    for key in value:
        wrong = _key_problem(key, about)
        if wrong:
            problems.add(join(path, key), wrong)
    return {key: read(item, kind, about, join(path, key), problems) for key, item in value.items()}


def _key_problem(key: str, about: About) -> str:
    if about.allowed_keys and key not in about.allowed_keys:
        return f"unknown key ({suggest(key, about.allowed_keys)})"
    if len(key) > MAX_STRING:
        return f"a key of {len(key)} characters, at most {MAX_STRING} are allowed"
    if about.pattern and not re.fullmatch(about.pattern, key):
        return f"a key must be {about.like}"
    return ""


def _read_any(value: Any, path: str, problems: Problems) -> Any:
    """Free values, as tvm.target.Target takes them: strings, numbers, lists and tables of those."""
    if isinstance(value, list):
        return list(_read_list(value, (object, ...), About(""), path, problems) or ())
    if isinstance(value, dict):
        return _read_table(value, object, About(""), path, problems)
    for kind in (bool, int, float, str):
        if type(value) is kind:
            return _read_scalar(value, kind, About(""), path, problems)
    problems.add(path, f"must be a string, a number, a list or a table, not {show(value)}")
    return HOLE


_KIND_NAMES = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def _read_scalar(value: Any, kind: type, about: About, path: str, problems: Problems) -> Any:
    fits = type(value) is kind or (kind is float and type(value) is int)
    if not fits:
        problems.add(path, f"must be {_KIND_NAMES[kind]}, not {show(value)}")
        return HOLE
    wrong = _string_problem(value, about) if kind is str else _limit_problem(value, about)
    if wrong:
        problems.add(path, wrong)
        return HOLE
    return kind(value)


def _string_problem(value: str, about: About) -> str:
    if len(value) > MAX_STRING:
        return f"has {len(value)} characters, at most {MAX_STRING} are allowed"
    if not value.isprintable():
        return f"must be one line of printable characters, not {show(value)}"
    if about.not_empty and not value.strip():
        return "must not be empty"
    if about.allowed and value not in about.allowed:
        return f"unknown value {show(value)} ({suggest(value, map(str, about.allowed))})"
    if about.pattern and not re.fullmatch(about.pattern, value):
        return f"must be {about.like}, not {show(value)}"
    return ""


def _limit_problem(value: Any, about: About) -> str:
    if isinstance(value, bool):
        return ""
    if not -(2**62) <= value <= 2**62 or not math.isfinite(value):
        return f"{show(value)} is out of range"
    if about.allowed and value not in about.allowed:
        return f"must be {' or '.join(map(str, about.allowed))}, not {show(value)}"
    if about.low is not None and about.high is not None and not about.low <= value <= about.high:
        return f"must be from {about.low:g} to {about.high:g}, not {show(value)}"
    if about.power_of_two and value & (value - 1):
        return f"must be a power of two, not {show(value)}"
    return ""
