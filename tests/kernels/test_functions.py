"""Functions of float32: the same bits on every target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from unittest import mock

import numpy as np
import pytest
from function_cases import KINDS
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_targets import HOSTED_TARGETS
from kernel_cases import check
from program_batch import run_batch

from hwptq.backends.backend import why_not_run
from hwptq.operators.real_sigmoid import RealSigmoid
from hwptq.targets import load_target
from hwptq.tir import vector_unit

AVX2 = load_target("x86-64-avx2")


@pytest.mark.skipif(why_not_run(AVX2) is not None, reason=f"{AVX2.name}: {why_not_run(AVX2)}")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=6, deadline=None)
@given(random=st.randoms(use_true_random=False), threads=st.sampled_from((1, 3)))
def test_random_functions(kind: Callable, random: Random, threads: int) -> None:
    with mock.patch.object(vector_unit, "_LEAST_SHARED", 0):
        check(kind(random), AVX2, threads)


@pytest.mark.parametrize("name", HOSTED_TARGETS)
def test_a_batch_on_every_target(runnable: Callable[[str], str], name: str, tmp_path: Path) -> None:
    target = load_target(runnable(name))
    cases = [kind(Random(seed)) for seed in range(3) for kind in KINDS]
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.expected(), err_msg=str(case))


def test_a_sigmoid_is_that_of_real_numbers() -> None:
    x = np.linspace(-80, 80, 4001, dtype=np.float32)
    exact = 1 / (1 + np.exp(-x.astype(np.float64)))
    assert np.max(np.abs(RealSigmoid().reference(x) - exact) / exact) < 3e-7
    assert RealSigmoid().reference(np.float32([-1e30, -0.0, 0, 1e30])).tolist()[1:] == [0.5, 0.5, 1]
