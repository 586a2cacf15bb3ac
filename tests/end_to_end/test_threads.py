"""A program of several threads gives the same bits, on any number of them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from real_models import MODELS

import hwptq
from hwptq.backends.static_c import static_program
from hwptq.backends.static_c.c_source import data_file
from hwptq.errors import InputError
from hwptq.options import Options
from hwptq.recipe import RECIPES
from hwptq.targets import load_target
from hwptq.tir import vector_unit

OPTIONS = Options(threads=3, recipe=RECIPES["fast"])


def _eager(name: str) -> str:
    """The files of the backend, with a pool that shares whatever it costs."""
    return data_file(name).replace("POOL_WORTH 3 ", "POOL_WORTH 0 ")


@pytest.mark.parametrize("target", ["x86-64-avx2", "x86-64-vnni", "arm-cortex-a"])
def test_the_threads_of_a_program(
    target: str, runnable: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_unit, "_LEAST_SHARED", 0)  # the demo is small
    monkeypatch.setattr(static_program, "data_file", _eager)
    arguments = MODELS["demo"].arguments(8, 4)
    model = hwptq.compile(**arguments, target=runnable(target), output=tmp_path / "out", options=OPTIONS)
    assert model.report["bit_exact"]["mismatches"] == 0
    assert model.report["bit_exact"]["samples"] == 4
    golden = np.load(model.folder / "golden.npz")
    (tensor,) = model.inputs
    inputs = np.ascontiguousarray(golden[tensor.name]).tobytes()
    command = [*load_target(target).toolchain.run, str(model.folder / "digits"), "--threads"]
    for threads in ("1", "2", "3"):
        run = subprocess.run([*command, threads], input=inputs, capture_output=True, check=True, timeout=120)
        assert run.stdout == golden["output_0"].tobytes(), threads
    refused = subprocess.run([*command, "4"], input=inputs, capture_output=True, check=False, timeout=120)
    assert refused.returncode == 1
    assert b"usage" in refused.stderr


def test_a_target_without_a_c_library_has_no_threads(tmp_path: Path) -> None:
    arguments = MODELS["demo"].arguments(2, 2)
    target = "hexagon-v66-npu"
    with pytest.raises(InputError, match=r"--threads can only be 1|not found on PATH"):
        hwptq.compile(**arguments, target=target, output=tmp_path / "out", options=OPTIONS)
