"""Descriptors for the tests: shipped ones, edited as text."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from hwptq.targets import Descriptor
from hwptq.targets.convert import key_of
from hwptq.targets.read import FOLDER

ARM = "arm-cortex-a"
I8MM = "arm-cortex-a-i8mm"

#: refuse(text, trust=False) -> the lines of the message
Refuse = Callable[..., list[str]]


def edited(name: str, *edits: tuple[str, str]) -> str:
    """The text of a shipped descriptor with each `(old, new)` replaced once; `old` must be there."""
    text = (FOLDER / f"{name}.toml").read_text()
    for old, new in edits:
        assert old in text, f"{name}.toml has no {old!r}"
        text = text.replace(old, new, 1)
    return text


def written(target: Descriptor) -> str:
    """A descriptor as TOML, every field spelled out; JSON's strings and numbers are TOML."""
    return "".join(f"{key_of(f)} = {_toml(getattr(target, f.name))}\n" for f in dataclasses.fields(target))


def _toml(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        table = {key_of(f): getattr(value, f.name) for f in dataclasses.fields(value)}
        template = getattr(value, "template", None)
        return _toml({**({"template": template} if template else {}), **table})
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, tuple | list):
        return "[" + ",\n".join(map(_toml, value)) + "]"  # lines of a file are limited
    return json.dumps(value)
