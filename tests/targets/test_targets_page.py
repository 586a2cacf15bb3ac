"""docs/targets.md: its examples load, its tables are up to date, it names every shipped target."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from descriptors import ARM

from hwptq.targets import load_target, target_names
from hwptq.targets.read import FOLDER
from hwptq.targets.reference import rewrite
from hwptq.targets.templates.dot_product import DotProductKernel

PAGE = (FOLDER.parent / "docs" / "targets.md").read_text()
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```toml\n(.*?)```", PAGE, re.DOTALL))


def write(example: str, folder: Path) -> Path:
    path = folder / f"{example}.toml"
    path.write_text(EXAMPLES[example])
    return path


def test_the_complete_example_loads(tmp_path: Path) -> None:
    target = load_target(write("complete", tmp_path))
    kernel = target.kernels["vpdpbusd"]
    assert isinstance(kernel, DotProductKernel)
    assert (kernel.lanes, kernel.k, kernel.unsigned_activation) == (8, 4, True)
    assert target.rule("matmul") is None


def test_the_extending_example_loads(tmp_path: Path) -> None:
    target, arm = load_target(write("extends", tmp_path)), load_target(ARM)
    assert target.tvm["mcpu"] == "cortex-a55"
    assert target.kernels["sdot"].tile_pixels == 3
    assert target.kernels["depthwise"] == arm.kernels["depthwise"]
    dense = target.rule("dense")
    assert dense is not None
    assert dense.pairs == (("int8", "int8"),)


def test_the_narrow_example_loads(tmp_path: Path) -> None:
    dense = load_target(write("narrow", tmp_path)).rule("dense")
    assert dense is not None
    assert dense.pairs[-1] == ("int4", "int4")


def test_the_tables_are_up_to_date() -> None:
    assert rewrite(PAGE) == PAGE, "run: python -m hwptq.targets.reference docs/targets.md"


@pytest.mark.parametrize("name", target_names())
def test_every_shipped_target_is_listed(name: str) -> None:
    assert f"| `{name}` |" in PAGE


def test_the_sample_messages_are_real() -> None:
    """Each line of the sample is a message that another test provokes: its wording is in the sources."""
    sources = "".join(path.read_text() for path in FOLDER.rglob("*.py"))
    for words in ("bits: a vector has a power of two of bits", "LLVM knows no CPU", "missing: op["):
        assert words in PAGE
        assert words in sources
