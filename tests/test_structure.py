"""Open sets stay open: outside its home no code asks for the name of a number format, or lists movements."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwptq import formats
from hwptq.ir.movement import SAME_ORDER

ROOT = Path(__file__).parent.parent
FOLDERS = ("hwptq", "passes", "targets")
NAMES = {
    name for f in formats.formats() if f.quantized or f.name == "uint8" for name in (f.name, f.short)
} - {""}
OBJECTS = {name for name in formats.__all__ if isinstance(getattr(formats, name), formats.Format)}

#: Files and folders that may, and why.
HOMES = {
    "hwptq/formats": "the formats",
    "hwptq/tir": "what a layout stores int8 values as: int8, uint8 or int16",
    "hwptq/kernels": "templates, each for instructions on operands of some dtypes",
    "hwptq/data/preprocess.py": "images are bytes",
    "hwptq/frontends/onnx": "the dtypes of ONNX",
}


def is_named(node: ast.AST) -> bool:
    """Whether an expression is a format, or the name of one."""
    match node:
        case ast.Constant(value=str(text)):
            return text in NAMES
        case ast.Name(id=name):
            return name in OBJECTS
        case ast.Attribute(attr="DTYPE"):
            return True
        case ast.Attribute(value=ast.Name(id=owner), attr=attribute):
            return (owner in OBJECTS and attribute == "name") or (owner == "np" and attribute in NAMES)
        case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
            return any(map(is_named, items))
    return False


def branches(code: str) -> Iterator[int]:
    """Lines that compare something with a format or the name of one."""
    for node in ast.walk(ast.parse(code)):
        compared = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
        compared += [node.value] if isinstance(node, ast.MatchValue) else []
        if any(map(is_named, compared)):
            yield node.lineno  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "code",
    [
        'x.dtype == "int8"', 'out in ("int4", "float32")', "f != INT4", "f.name == E4M3.name",
        "a.dtype != np.int8", "fp8.DTYPE == x", "match x:\n  case 'bfloat16': pass", 'word == "fp8"',
    ],
)  # fmt: skip
def test_a_branch_is_noticed(code: str) -> None:
    assert list(branches(code))


@pytest.mark.parametrize("code", ['dtype: str = "int8"', 'x.astype("int8")', "f.bits > 8", "f = INT8"])
def test_a_default_is_none(code: str) -> None:
    assert not list(branches(code))


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_code_asks_for_the_name_of_a_format(folder: str) -> None:
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        name = path.relative_to(ROOT)
        if not any(name.is_relative_to(home) for home in HOMES):
            found += [f"{name}:{line}" for line in branches(path.read_text(encoding="utf-8"))]
    assert found == []


def test_every_home_is_one() -> None:
    """What is listed is needed: it is there, and it has such a branch."""
    for home in HOMES:
        paths = [ROOT / home] if home.endswith(".py") else sorted((ROOT / home).rglob("*.py"))
        codes = [p.read_text(encoding="utf-8") for p in paths]
        assert home == "hwptq/formats" or any(list(branches(code)) for code in codes), home


def listed_movements(code: str) -> Iterator[int]:
    """Lines that list operators which hwptq/ir/movement.py has a list of."""
    for node in ast.walk(ast.parse(code)):
        parts = {ast.Dict: "keys", ast.Call: "args"}.get(type(node), "elts")
        names = [getattr(part, "value", None) for part in getattr(node, parts, [])]
        if sum(name in SAME_ORDER for name in names if isinstance(name, str)) > 1:
            yield node.lineno  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "code",
    [
        'x in ("reshape", "squeeze")',
        '@f("flatten", "reshape")\ndef g(): pass',
        '{"reshape": 1, "squeeze": 2}',
    ],
)
def test_a_list_of_movements_is_noticed(code: str) -> None:
    assert list(listed_movements(code)) == [1]


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_only_moves_values_is_listed_once(folder: str) -> None:
    paths = [p for p in sorted((ROOT / folder).rglob("*.py")) if p != ROOT / "hwptq/ir/movement.py"]
    found = [f"{p.relative_to(ROOT)}:{n}" for p in paths for n in listed_movements(p.read_text("utf-8"))]
    assert found == []
