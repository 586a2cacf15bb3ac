"""The demo with a calibration method and a rounding method that the package does not know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import calibration_extension  # noqa: F401
import pytest
import rounding_extension  # noqa: F401
from real_models import MODELS

import hwptq
from hwptq.errors import InputError
from hwptq.recipe import recipe

TARGET = "x86-64-avx2"
ARGUMENTS = MODELS["demo"].arguments(32, 60)


@pytest.fixture(scope="module")
def plain(runnable: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> float:
    """The SQNR of the demo with the methods of the package."""
    folder = tmp_path_factory.mktemp("plain") / "out"
    model = hwptq.compile(**ARGUMENTS, target=runnable(TARGET), output=folder, recipe="fast")
    return model.report["accuracy"]["sqnr_db"]


@pytest.mark.parametrize("setting", ["observer=three-sigma", "rounding=covering"])
def test_the_demo_is_bit_exact_and_no_worse(
    setting: str, plain: float, tmp_path: Path
) -> None:  # fmt: skip
    chosen = recipe("fast", [setting])
    model = hwptq.compile(**ARGUMENTS, target=TARGET, output=tmp_path / "out", recipe=chosen)
    assert model.report["bit_exact"]["mismatches"] == 0
    accuracy = model.report["accuracy"]
    assert accuracy["float32"] - accuracy["emitted"] <= 6
    assert plain != accuracy["sqnr_db"]  # it took effect


def test_a_method_that_nobody_defined_is_one_line() -> None:
    with pytest.raises(InputError, match=r"--set rounding=up: give rounding=nearest, .*covering"):
        recipe("fast", ["rounding=up"])
    with pytest.raises(InputError, match=r"--set observer=up: give observer=minmax, .*three-sigma"):
        recipe("fast", ["observer=up"])
