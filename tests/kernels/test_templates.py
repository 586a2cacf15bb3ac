"""Templates are an open set: each has a table and kernels, and no other code asks which one it has."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwptq.kernels.template import Template, templates
from hwptq.targets.op_kinds import op_kinds
from hwptq.targets.templates.base import Kernel, shipped_tables

ROOT = Path(__file__).parents[2]
MODULES = [path for folder in ("hwptq", "passes", "targets") for path in (ROOT / folder).rglob("*.py")]


@pytest.mark.parametrize("name", shipped_tables())
def test_every_table_has_a_template(name: str) -> None:
    table = shipped_tables()[name]
    assert templates()[table].table is table
    assert set(table.serves) <= set(op_kinds())


def test_every_template_has_a_table() -> None:
    shipped = {table for table, made in templates().items() if made.__module__.startswith("hwptq.")}
    assert shipped == set(shipped_tables().values())


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="two templates called vector"):

        class Again(Kernel):
            template = "vector"
            serves = ("dense",)


def test_a_table_is_filled_once() -> None:
    with pytest.raises(TypeError, match="both fill vector"):

        class Again(Template):
            table = shipped_tables()["vector"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_asks_for_a_template(path: Path) -> None:
    """No isinstance of a table, no match of one, no comparison with a template's name."""
    code = path.read_text(encoding="utf-8")
    if path.is_relative_to(ROOT / "targets" / "templates"):
        return
    names, classes = set(shipped_tables()), {table.__name__ for table in shipped_tables().values()}
    asked = [node.lineno for node in ast.walk(ast.parse(code)) if _asks(node, names, classes)]
    assert asked == []


def _asks(node: ast.AST, names: set[str], classes: set[str]) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="isinstance"), args=[_, kinds]):
            return bool(classes & set(_names(kinds)))
        case ast.MatchClass(cls=cls):
            return bool(classes & set(_names(cls)))
        case ast.Compare():
            constants = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
            reads = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
            return "template" in reads and bool(names & {c for c in constants if isinstance(c, str)})
    return False


def _names(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.id
