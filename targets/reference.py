"""The tables of fields in docs/targets.md, made from the dataclasses.

    python -m hwptq.targets.reference docs/targets.md

writes them anew between the two marker lines of the file.
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from pathlib import Path
from typing import Any

from .convert import about_of, is_required, key_of
from .fields.about import About
from .schema import Descriptor
from .templates.base import Kernel, shipped_tables

BEGIN = "<!-- fields: begin (python -m hwptq.targets.reference docs/targets.md) -->"
END = "<!-- fields: end -->"


def tables() -> str:
    """Markdown: one table for the whole file, then one for each section and template."""
    hints = typing.get_type_hints(Descriptor)
    parts = [_table("The file", Descriptor)]
    for field in dataclasses.fields(Descriptor):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            parts.append(_table(f"`[{key_of(field)}]`", typing.cast(type, kind)))
            parts += _tables_below(key_of(field), typing.cast(type, kind))
        elif typing.get_origin(kind) is tuple:
            parts.append(_table(f"`[[{key_of(field)}]]`", typing.get_args(kind)[0]))
        elif typing.get_args(kind)[1:] == (Kernel,):
            parts += [
                _table(f'`[{key_of(field)}.NAME]` with `template = "{name}"`', cls)
                for name, cls in shipped_tables().items()
            ]
    return "\n\n".join(parts)


def _tables_below(section: str, cls: type) -> list[str]:
    """A table for each list of tables in a section."""
    hints = typing.get_type_hints(cls)
    inner = {key_of(f): typing.get_args(hints[f.name])[:1] for f in dataclasses.fields(cls)}
    return [
        _table(f"`[[{section}.{key}]]`", typing.cast(type, kinds[0]))
        for key, kinds in inner.items()
        if kinds and dataclasses.is_dataclass(kinds[0])
    ]


def rewrite(page: str) -> str:
    """The page with the tables as they are now."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{rest.split(END)[1]}"


def _table(title: str, cls: type) -> str:
    hints = typing.get_type_hints(cls)
    doc = (cls.__doc__ or "").split("\n")[0]
    rows = [_row(field, hints[field.name]) for field in dataclasses.fields(cls)]
    head = ["| key | type | default | meaning |", "|---|---|---|---|"]
    return "\n".join([f"### {title}", "", doc, "", *head, *rows])


def _row(field: dataclasses.Field, kind: Any) -> str:
    about = about_of(field)
    limits = _limits(about)
    meaning = about.doc + (f"; {limits}" if limits else "")
    cells = [f"`{key_of(field)}`", _type(kind), _default(field), meaning]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return "table"
    if origin is dict:
        return "tables" if arguments[1] is Kernel else "table"
    if origin is tuple:
        inner = "pair" if arguments[-1] is not Ellipsis else f"list of {_type(arguments[0])}s"
        return inner
    return {str: "string", int: "integer", float: "number", bool: "boolean"}[kind]


def _default(field: dataclasses.Field) -> str:
    if is_required(field):
        return "required"
    default = field.default if field.default is not dataclasses.MISSING else None
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, str):
        return f'`"{default}"`'
    if isinstance(default, tuple):
        return f"`{_lists(default)!s}`".replace("'", '"')
    return "" if default is None else f"`{default}`"


def _lists(value: Any) -> Any:
    return [_lists(item) for item in value] if isinstance(value, tuple) else value


def _limits(about: About) -> str:
    parts = []
    if about.allowed:
        parts.append("one of " + ", ".join(f"`{choice}`" for choice in about.allowed))
    if about.allowed_keys:
        parts.append("keys " + ", ".join(f"`{key}`" for key in about.allowed_keys))
    if about.low is not None and about.high is not None:
        parts.append(f"{_number(about.low)} to {_number(about.high)}")
    if about.power_of_two:
        parts.append("a power of two")
    return "; ".join(parts)


def _number(value: float) -> str:
    return f"{value:g}" if value < 10**7 else f"2^{int(value).bit_length() - 1}"


if __name__ == "__main__":
    _page = Path(sys.argv[1])
    _page.write_text(rewrite(_page.read_text(encoding="utf-8")), encoding="utf-8")
