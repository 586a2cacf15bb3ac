"""The constants of a model lie once in its object file and once in its program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from real_models import MODELS

import hwptq
from hwptq.backends.static_c import static_program
from hwptq.backends.static_c.memory_plan import MemoryPlan
from hwptq.options import Options
from hwptq.recipe import RECIPES


def test_a_library_of_too_many_constants_is_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static_program, "MOST_CONSTANTS", 5000)
    options = Options(recipe=RECIPES["fast"], samples=1)
    demo = MODELS["demo"].arguments(4, 1)
    model = hwptq.compile(**demo, target="x86-64-avx2", output=tmp_path, options=options)
    assert not (tmp_path / "model.so").exists()
    assert (tmp_path / "libdigits.so").exists()
    assert [w["kind"] for w in model.report["warnings"] if "model.so" in w["text"]] == ["library"]


def test_constants_are_stored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, plans, compile_parts = "x86-64-avx2", list[MemoryPlan](), static_program.compile_parts

    def spy(plan: MemoryPlan, *rest: Any, **words: Any) -> Any:
        plans.append(plan)
        return compile_parts(plan, *rest, **words)

    monkeypatch.setattr(static_program, "compile_parts", spy)
    options = Options(recipe=RECIPES["fast"], samples=1)
    model = hwptq.compile(**MODELS["demo"].arguments(4, 1), target=target, output=tmp_path, options=options)
    plans[0].weights.write(tmp_path / "constants.bin")
    constants = (tmp_path / "constants.bin").read_bytes()
    assert len(constants) == plans[0].weights.nbytes
    assert len(constants) == model.report["weight_bytes"]["quantized"] > 5000
    for name in ("digits", "digits.o", "libdigits.so"):
        assert (tmp_path / name).read_bytes().count(constants) == 1
