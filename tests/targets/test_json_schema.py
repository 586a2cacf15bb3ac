"""docs/descriptor.schema.json is what the dataclasses say."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import pytest

from hwptq.targets.convert import key_of
from hwptq.targets.json_schema import json_schema, text
from hwptq.targets.read import FOLDER, target_names
from hwptq.targets.schema import Descriptor
from hwptq.targets.templates.dot_product import DotProductKernel

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def test_the_committed_file_is_up_to_date() -> None:
    committed = (FOLDER.parent / "docs" / "descriptor.schema.json").read_text()
    assert committed == text(), "run: python -m hwptq.targets.json_schema docs/descriptor.schema.json"


def test_every_field_is_a_documented_property() -> None:
    properties = json_schema()["properties"]
    assert set(properties) == {key_of(f) for f in dataclasses.fields(Descriptor)} | {"extends"}
    assert all(schema.get("description") for schema in properties.values())


def test_limits_and_defaults() -> None:
    properties = json_schema()["properties"]
    kernels = properties["kernel"]["additionalProperties"]["anyOf"]
    dot = next(k for k in kernels if k["properties"]["template"] == {"const": DotProductKernel.template})
    assert dot["properties"]["lanes"]["maximum"] == 1024
    assert dot["properties"]["operand_bits"]["enum"] == [8, 16]
    assert dot["properties"]["tile_pixels"]["default"] == 7
    assert properties["op"]["items"]["required"] == ["op"]
    assert json_schema()["then"]["properties"]["toolchain"] == {"required": ["compiler"]}


@pytest.mark.parametrize("name", target_names())
def test_shipped_descriptors_use_known_properties(name: str) -> None:
    def walk(table: dict[str, Any], schema: dict[str, Any]) -> None:
        for key, value in table.items():
            assert key in schema["properties"], key
            if isinstance(value, dict) and "properties" in schema["properties"][key]:
                walk(value, schema["properties"][key])

    walk(tomllib.loads((FOLDER / f"{name}.toml").read_text()), json_schema())
