"""Recurrent layers: portable code against the reference, exactly, on all CPUs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import check
from program_batch import run_batch
from recurrent_cases import recurrent_case

from hwptq.backends.backend import why_not_run
from hwptq.targets import load_target

AVX2 = load_target("x86-64-avx2")


@pytest.mark.skipif(why_not_run(AVX2) is not None, reason=f"{AVX2.name}: {why_not_run(AVX2)}")
@settings(max_examples=12, deadline=None)
@given(st.randoms(use_true_random=False))
def test_native(random: Random) -> None:
    check(recurrent_case(random), AVX2)


@pytest.mark.parametrize("name", ["arm-cortex-a", "hexagon-v66-npu"])
def test_under_an_emulator(runnable: Callable[[str], str], name: str, tmp_path: Path) -> None:
    target = load_target(runnable(name))
    cases = [recurrent_case(Random(seed)) for seed in range(8)]
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.expected(), err_msg=str(case))
