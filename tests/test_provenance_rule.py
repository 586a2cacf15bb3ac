"""Nothing is recognised by a name: passes, reports and the search go by origins (hwptq/ir/provenance.py)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: Where names may be read, and why.
HOMES = {
    "hwptq/ir/provenance.py": "an origin of last resort is made of that of the var",
    "hwptq/frontends/relax.py": "names of symbolic sizes",
}
#: Parameters are called as the inputs of the user's model, and are found by that; `self` is no var.
PARAMETERS = ("p", "param", "self")
ENDINGS = ("endswith", "startswith", "removesuffix", "removeprefix")


def read_names(code: str) -> Iterator[int]:
    """Lines that read the name of a var, or take one apart at an underscore."""
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Call(func=ast.Name(id="str"), args=[ast.Attribute(attr="name", value=owner)]):
                operator = isinstance(owner, ast.Attribute) and owner.attr == "op"
                if not operator and not (isinstance(owner, ast.Name) and owner.id in PARAMETERS):
                    yield node.lineno
            case ast.Attribute(attr="name", value=ast.Attribute(attr="var") | ast.Name(id="var")):
                yield node.lineno
            case ast.Call(func=ast.Attribute(attr=attr), args=[ast.Constant(value=str(text))]):
                if attr in ENDINGS and text.startswith("_"):
                    yield node.lineno


@pytest.mark.parametrize(
    "code", ["str(var.name) == x", "f'{var.name}_q'", "name.endswith('_nhwc')", "str(layer.var.name)"]
)
def test_reading_a_name_is_noticed(code: str) -> None:
    assert list(read_names(code))


@pytest.mark.parametrize("code", ["str(p.name)", "str(value.op.name)", "name.startswith('hwptq.')"])
def test_what_is_no_name_of_a_var_is_not(code: str) -> None:
    assert not list(read_names(code))


@pytest.mark.parametrize("folder", ["hwptq", "passes"])
def test_no_code_goes_by_the_name_of_a_var(folder: str) -> None:
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if name not in HOMES:
            found += [f"{name}:{line}" for line in read_names(path.read_text(encoding="utf-8"))]
    assert found == []
