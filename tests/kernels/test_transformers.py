"""Softmax and norms in portable code against the reference, exactly, on every target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_targets import HOSTED_TARGETS
from kernel_cases import Case, check
from program_batch import run_batch
from transformer_cases import KINDS, residual

from hwptq.backends.backend import why_not_run
from hwptq.operators.group_norm import GroupNorm
from hwptq.operators.softmax import Softmax
from hwptq.quant.integer_norm import halvings, norm_constants
from hwptq.quant.integer_softmax import exponent
from hwptq.targets import load_target

AVX2 = load_target("x86-64-avx2")
native = pytest.mark.skipif(why_not_run(AVX2) is not None, reason=f"{AVX2.name}: {why_not_run(AVX2)}")


@native
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=8, deadline=None)
@given(random=st.randoms(use_true_random=False), threads=st.sampled_from((1, 3)))
def test_random_operators(kind: Callable, random: Random, threads: int) -> None:
    check(kind(random), AVX2, threads)


@native
@settings(max_examples=8, deadline=None)
@given(random=st.randoms(use_true_random=False))
def test_residual_sums_join_the_layer_before_them(random: Random) -> None:
    case = residual(random)
    assert case.steps(AVX2)[-1].name.startswith(f"{case.op.kind}_dot_product")
    check(case, AVX2)


@native
def test_rows_that_are_masked_whole_are_zeros() -> None:
    by = exponent(0.1)
    x = np.arange(66, dtype=np.int8).reshape(2, 33)
    case = Case(Softmax(by.factor, by.shift, by.reach, True), (x, np.array([[1], [0]], np.int8)), ())
    check(case, AVX2)
    assert (case.expected()[0] == -128).all()
    assert (case.expected()[1] > -128).any()


@native
@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("value", [-128, 127, None])
def test_a_norm_of_more_pixels_than_32_bits_can_sum(dtype: type, value: int | None) -> None:
    """Of one value, whose variance is 0, and of any; the variance of so many int16 is divided."""
    rng, limits = np.random.default_rng(0), np.iinfo(dtype)
    shape = 1, 301, 450, 2
    x = rng.integers(limits.min, limits.max + 1, shape).astype(dtype)
    x = x if value is None else np.full(shape, value, dtype)
    found = norm_constants(
        np.ones(2), np.array([0, 0.5]), 1e-5, 0.1, 0.02, 301 * 450, halvings(301 * 450, dtype)
    )
    case = Case(GroupNorm(2, found.eps, found.shift, 0, -128, 127), (x,), (found.multiplier, found.bias))
    check(case, AVX2)
    if value is not None:
        assert (case.expected() == np.int8([0, 25])).all()


@pytest.mark.parametrize("name", HOSTED_TARGETS)
def test_a_batch_on_every_target(runnable: Callable[[str], str], name: str, tmp_path: Path) -> None:
    target = load_target(runnable(name))
    cases = [kind(Random(seed)) for seed in range(3) for kind in KINDS]
    if not target.memory.scratchpad:
        cases += [residual(Random(seed)) for seed in range(3)]
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.expected(), err_msg=str(case))
