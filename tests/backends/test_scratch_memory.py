"""A kernel that asks for more than the scratchpad: the program stops there, and says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from real_models import MODELS

import hwptq
from hwptq.backends.static_c import static_program
from hwptq.backends.static_c.c_source import Workspace
from hwptq.errors import HwptqError
from hwptq.options import Options
from hwptq.recipe import RECIPES


def test_a_kernel_that_asks_for_more_at_run_time_ends_the_program(
    runnable: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program gets less scratch memory than its kernels were made for."""
    target = runnable("hexagon-v66-npu")
    given: list[int] = []

    def less(wanted: dict[str, int], _: object) -> Workspace:
        given.append(max(wanted.values()) - 128)
        return Workspace(given[-1], 128, in_arena=False)

    monkeypatch.setattr(static_program, "_workspace", less)
    arguments = MODELS["demo"].arguments(2, 1)
    message = r"status 3: .*: digits: kernel [1-9]\d* asks for more scratch memory than there is$"
    with pytest.raises(HwptqError, match=message):
        hwptq.compile(
            **arguments, target=target, output=tmp_path / "out", options=Options(recipe=RECIPES["fast"])
        )
    assert given[0] > 0
    assert not (tmp_path / "out").exists()
