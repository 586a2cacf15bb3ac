"""A preprocess file as text, from what one was read as."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from .preprocess import InputTransform, Padding, Preprocess


def preprocess_text(preprocess: Preprocess) -> str:
    """The TOML of transforms: load_preprocess of it gives the same ones."""
    return "\n\n".join(
        "\n".join([f"[{_key(name)}]", *_lines(transform)]) for name, transform in preprocess.inputs.items()
    ) + "\n"  # fmt: skip


def _lines(transform: InputTransform) -> Iterator[str]:
    usual = InputTransform()
    for f in fields(transform):
        value = getattr(transform, f.name)
        if value != getattr(usual, f.name):
            yield f"{f.name} = {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, Padding):
        return "{ " + ", ".join(f"{f.name} = {_value(getattr(value, f.name))}" for f in fields(value)) + " }"
    if isinstance(value, str):
        return _word(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return repr(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _word(name)


def _word(text: str) -> str:
    """A basic string of TOML: that of JSON but for one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
