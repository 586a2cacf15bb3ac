"""The demo takes no more instructions than the committed table of benchmarks/guard.py says."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import guard  # noqa: E402

TABLE = json.loads(guard.TABLE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["arm-cortex-a", "riscv64-rvv"])
def test_the_demo_takes_no_more_instructions(
    runnable: Callable[[str], str], name: str, tmp_path: Path
) -> None:
    found = guard.count(guard.load("demo", ROOT / "examples"), runnable(name), tmp_path)
    fault = guard.judged(found, "demo", name, TABLE)
    assert not fault or found < TABLE["demo"][name], f"{found:,} {fault}: python benchmarks/guard.py --update"


@pytest.mark.parametrize(("found", "good"), [(1000, True), (1004, True), (1006, False), (994, False)])
def test_half_a_percent_is_a_difference(found: int, good: bool) -> None:
    table = {"model": {"target": 1000}}
    assert (guard.judged(found, "model", "target", table) == "") == good
    assert guard.judged(found, "model", "other", table)
