"""What docs/architecture.md promises: imports go one way, and the arithmetic knows no compiler."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterable
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"hwptq": "hwptq", "passes": "hwptq.passes", "targets": "hwptq.targets"}

#: Packages from the bottom up: a module imports from its own package and from those above it in this list.
#: A row with several packages has them side by side.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "hwptq.errors",
        "hwptq.disk",
        "hwptq.no_device",
        "hwptq.json_text",
        "hwptq.blas",
        "hwptq.cores",
        "hwptq.user_code",
    ),
    ("hwptq.cache",),
    ("hwptq.notices",),
    ("hwptq.formats",),
    ("hwptq.metrics",),
    ("hwptq.quant",),
    ("hwptq.bitwidths",),
    ("hwptq.targets.fields",),
    ("hwptq.targets.templates",),
    ("hwptq.targets",),
    ("hwptq.tir",),
    ("hwptq.ir",),
    ("hwptq.evaluate",),
    ("hwptq.gradients", "hwptq.gradients.*"),
    ("hwptq.lowering",),
    ("hwptq.operators",),
    ("hwptq.kernels",),
    ("hwptq.kernels.cuda",),
    ("hwptq.passes.graph",),
    ("hwptq.passes",),
    ("hwptq.backends", "hwptq.backends.*"),
    ("hwptq.executors",),
    ("hwptq.executors.boards",),
    ("hwptq.workers",),
    ("hwptq.data", "hwptq.frontends", "hwptq.frontends.*"),
    ("hwptq.progress", "hwptq.recipe"),
    ("hwptq.options", "hwptq.calibration"),
    ("hwptq.pipeline",),
    ("hwptq.page.charts",),
    ("hwptq.page",),
    ("hwptq.report",),
    ("hwptq.tuning",),
    ("hwptq.search",),
    ("hwptq.diagnosis",),
    ("hwptq.*",),
    ("hwptq.consistency", "hwptq.sweep"),
    ("hwptq.cli", "hwptq.__main__"),
)


@cache
def modules() -> dict[str, Path]:
    """Every module by its name; packages by theirs."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


def imported(name: str, path: Path, nodes: Iterable[ast.AST]) -> list[str]:
    """The modules of ours that import statements among `nodes` name."""
    found, wanted = modules(), []
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            wanted += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            inside = [f"{base}.{alias.name}" for alias in node.names]
            wanted += [i for i in inside if i in found] or [base]
    return [other for other in wanted if other in found and other != name]


def imports() -> nx.DiGraph:
    """module -> module it imports, at the top of the file or inside a function."""
    graph = nx.DiGraph()
    for name, path in modules().items():
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        graph.add_edges_from((name, other) for other in imported(name, path, nodes))
    return graph


def first_imports() -> nx.DiGraph:
    """module -> module that runs before it: those imported at the top of the file, and their packages."""
    graph = nx.DiGraph()
    for name, path in modules().items():
        code = path.read_text(encoding="utf-8")
        top = [n for n in ast.parse(code).body if isinstance(n, ast.Import | ast.ImportFrom)]
        for other in imported(name, path, top):
            parts = other.split(".")
            packages = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
            graph.add_edges_from((name, p) for p in packages if not f"{name}.".startswith(f"{p}."))
    return graph


def package(module: str) -> str:
    """The package that holds a module; a package itself, and a module of the root, stand for themselves."""
    return (
        module
        if module.count(".") == 1 or modules()[module].name == "__init__.py"
        else module.rpartition(".")[0]
    )


def layer(module: str) -> int:
    """The row of a module's package: the one that names it, else the last whose pattern fits."""
    home = package(module)
    rows = [i for i, row in enumerate(LAYERS) if any(fnmatch(home, pattern) for pattern in row)]
    assert rows, f"{home} has no layer"
    return next((i for i in rows if home in LAYERS[i]), rows[0])


def test_no_cycles() -> None:
    graph = imports()
    graph.remove_nodes_from(["hwptq"])  # modules read __version__ from it
    assert list(nx.simple_cycles(graph)) == []


def test_no_cycles_of_packages() -> None:
    pairs = ((package(a), package(b)) for a, b in imports().edges if "hwptq" not in (a, b))
    graph = nx.DiGraph((a, b) for a, b in pairs if a != b)
    assert list(nx.simple_cycles(graph)) == []


def test_any_module_may_be_imported_first() -> None:
    assert list(nx.simple_cycles(first_imports())) == []


def test_imports_go_down() -> None:
    inner = [(a, b) for a, b in imports().edges if a != "hwptq" and b != "hwptq"]
    assert [f"{a} imports {b}" for a, b in inner if layer(a) < layer(b)] == []


def test_the_arithmetic_knows_no_compiler() -> None:
    for path in (ROOT / "hwptq" / "quant").glob("*.py"):
        assert not re.search(r"^\s*(from|import) tvm", path.read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("folder", FOLDERS)
def test_nothing_imports_the_bare_names(folder: str) -> None:
    """passes/ and targets/ are hwptq.passes and hwptq.targets; `import passes` works by accident at best."""
    for path in (ROOT / folder).rglob("*.py"):
        assert not re.search(r"^\s*(from|import) (passes|targets)\b", path.read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("package", ["hwptq", "hwptq.passes"])
def test_public_names_are_found(package: str) -> None:
    """Those that a type checker sees, those in the table, and those that are really there are the same."""
    module = importlib.import_module(package)
    tree = ast.parse(modules()[package].read_text(encoding="utf-8"))
    shown = {
        (f"{package}.{node.module}", alias.asname)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    assert shown == {(f"{package}.{home}", name) for name, home in module._HOMES.items()}
    assert set(module.__all__) <= set(dir(module))
    for name, home in module._HOMES.items():
        assert not inspect.ismodule(getattr(module, name)), "a module of this name hides it"
        assert name != home
