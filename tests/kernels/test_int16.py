"""Operators with int16 activations: their code equals the reference on every target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from int16_cases import KINDS, conv, dense
from integer_targets import HOSTED_TARGETS
from kernel_cases import check
from program_batch import run_batch

from hwptq.backends.backend import why_not_run
from hwptq.targets import load_target

AVX2 = load_target("x86-64-avx2")


@pytest.mark.skipif(why_not_run(AVX2) is not None, reason=f"{AVX2.name}: {why_not_run(AVX2)}")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=8)
@given(random=st.randoms(use_true_random=False))
def test_random_operators(kind: Callable, random: Random) -> None:
    check(kind(random), AVX2)


@pytest.mark.parametrize("name", HOSTED_TARGETS)
def test_a_batch_on_every_target(runnable: Callable[[str], str], name: str, tmp_path: Path) -> None:
    target = load_target(runnable(name))
    cases = [kind(Random(seed)) for seed in range(3) for kind in KINDS]
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.expected(), err_msg=str(case))


@pytest.mark.parametrize("name", HOSTED_TARGETS)
def test_layers_on_every_target(runnable: Callable[[str], str], name: str, tmp_path: Path) -> None:
    """By kernels for bytes, upper and lower ones, or for int16: more shapes than the batch above has."""
    target = load_target(runnable(name))
    cases = [kind(Random(seed)) for seed in range(10, 26) for kind in (conv, dense)]
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.expected(), err_msg=str(case))
