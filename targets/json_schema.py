"""The JSON Schema of a descriptor, made from the dataclasses, for completion and checks in an editor.

    python -m hwptq.targets.json_schema docs/descriptor.schema.json

writes it. Editors apply it to TOML too (taplo, Even Better TOML). It knows types and limits; the checks
across fields and against LLVM are the loader's.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import typing
from pathlib import Path
from typing import Any

from .convert import MAX_ITEMS, MAX_STRING, about_of, is_required, key_of
from .fields.about import About
from .schema import Descriptor
from .templates.base import Kernel, shipped_tables

Schema = dict[str, Any]
_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def json_schema() -> Schema:
    """The schema of a whole descriptor file."""
    body = _of_dataclass(Descriptor)
    extends = {
        "description": "a shipped target or a .toml file beside this one, whose values are the defaults",
        **_of_string(About("", not_empty=True)),
    }
    body["properties"] = {**body["properties"], "extends": extends}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hwptq target descriptor",
        **body,
        "required": ["schema", "name"],
        "if": {"not": {"required": ["extends"]}},
        "then": _requirements(Descriptor),
    }


def text() -> str:
    """The schema as it stands in docs/descriptor.schema.json."""
    return json.dumps(json_schema(), indent=2) + "\n"


def _of(kind: Any, about: About) -> Schema:
    origin = typing.get_origin(kind)
    if kind is Kernel:
        return {"anyOf": [_of_kernel(name, cls) for name, cls in shipped_tables().items()]}
    if dataclasses.is_dataclass(kind):
        return _of_dataclass(typing.cast(type, kind))
    if origin is tuple:
        return _of_list(typing.get_args(kind), about)
    if origin is dict:
        return _of_table(typing.get_args(kind)[1], about)
    if kind is object:
        return {"type": ["string", "number", "boolean", "array", "object"]}
    return _of_string(about) if kind is str else _of_number(_TYPES[kind], about)


def _required(cls: type) -> list[str]:
    return [key_of(f) for f in dataclasses.fields(cls) if is_required(f)]


def _requirements(cls: type) -> Schema:
    """What must be there in a file that extends no other; with `extends` it may come from there."""
    hints = typing.get_type_hints(cls)
    parts: Schema = {}
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind) and _required(typing.cast(type, kind)):
            parts[key_of(field)] = _requirements(typing.cast(type, kind))
        elif typing.get_args(kind)[1:] == (Kernel,):
            parts[key_of(field)] = _kernel_requirements()
    parts = {key: part for key, part in parts.items() if part}
    return {"required": _required(cls), **({"properties": parts} if parts else {})}


def _kernel_requirements() -> Schema:
    """A kernel needs a template, and that the fields without default."""
    cases = [
        {"if": {"properties": {"template": {"const": name}}}, "then": {"required": _required(cls)}}
        for name, cls in shipped_tables().items()
        if _required(cls)
    ]
    return {"additionalProperties": {"required": ["template"], "allOf": cases}}


def _of_dataclass(cls: type) -> Schema:
    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(cls)
    return {
        "type": "object",
        "description": (cls.__doc__ or "").split("\n")[0],
        "properties": {key_of(f): _of_field(f, hints[f.name]) for f in fields},
        "additionalProperties": False,
    }


def _of_field(field: dataclasses.Field, kind: Any) -> Schema:
    schema = {**_of(kind, about_of(field)), "description": about_of(field).doc}
    if field.default is not dataclasses.MISSING:
        schema["default"] = field.default
    return schema


def _of_kernel(template: str, cls: type) -> Schema:
    schema = _of_dataclass(cls)
    schema["properties"] = {"template": {"const": template}, **schema["properties"]}
    return schema


def _of_list(kinds: tuple[Any, ...], about: About) -> Schema:
    items = _of(kinds[0], dataclasses.replace(about, not_empty=False))
    if dataclasses.is_dataclass(kinds[0]):
        items["required"] = _required(typing.cast(type, kinds[0]))
    if kinds[-1] is Ellipsis:
        low = {"minItems": 1} if about.not_empty else {}
        return {"type": "array", "items": items, **low, "maxItems": MAX_ITEMS}
    return {"type": "array", "items": items, "minItems": len(kinds), "maxItems": len(kinds)}


def _of_table(kind: Any, about: About) -> Schema:
    schema: Schema = {"type": "object", "additionalProperties": _of(kind, about), "maxProperties": MAX_ITEMS}
    if about.allowed_keys:
        schema["propertyNames"] = {"enum": list(about.allowed_keys)}
    elif about.pattern:
        schema["propertyNames"] = {"pattern": f"^(?:{about.pattern})$"}
    return schema


def _of_string(about: About) -> Schema:
    schema: Schema = {"type": "string", "maxLength": MAX_STRING}
    if about.not_empty:
        schema["minLength"] = 1
    if about.allowed:
        schema = {"enum": list(about.allowed)}
    if about.pattern:
        schema["pattern"] = f"^(?:{about.pattern})$"
    return schema


def _of_number(name: str, about: About) -> Schema:
    schema: Schema = {"type": name}
    if about.allowed:
        return {"enum": list(about.allowed)}
    if about.power_of_two and about.low is not None and about.high is not None:
        powers = [2**i for i in range(int(about.high).bit_length())]
        return {"enum": [p for p in powers if about.low <= p <= about.high]}
    if about.low is not None:
        schema["minimum"] = about.low
    if about.high is not None:
        schema["maximum"] = about.high
    return schema


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(), encoding="utf-8")
