"""The demo, verified by an executor that the package does not know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import executor_extension
import numpy as np
from real_models import MODELS

import hwptq
from hwptq.options import Options
from hwptq.recipe import RECIPES


def test_the_demo_is_bit_exact(runnable: Callable[[str], str], tmp_path: Path) -> None:
    counted = executor_extension.Counting.samples
    counted.clear()
    options = Options(executor="counting", recipe=RECIPES["fast"])
    arguments = MODELS["demo"].arguments(8, 5)
    model = hwptq.compile(**arguments, target=runnable("x86-64-avx2"), output=tmp_path, options=options)
    exact = model.report["bit_exact"]
    assert (exact["executor"], exact["mismatches"], len(counted)) == ("a counting process", 0, 5)
    golden = np.load(tmp_path / "golden.npz")
    (tensor,) = model.inputs
    np.testing.assert_array_equal(
        model.run({tensor.name: golden[tensor.name][:1]})["logits"], golden["output_0"][:1]
    )
    assert len(counted) == 6
