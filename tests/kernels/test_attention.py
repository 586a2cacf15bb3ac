"""Attention in float: the same bits on every target, whatever stands behind what a query sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from unittest import mock

import attention_cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_targets import HOSTED_TARGETS
from kernel_cases import Case, check
from program_batch import run_batch

from hwptq.backends.backend import why_not_run
from hwptq.operators.attention import Attention
from hwptq.quant.float_attention import exponential
from hwptq.targets import load_target
from hwptq.tir import vector_unit

AVX2 = load_target("x86-64-avx2")
native = pytest.mark.skipif(why_not_run(AVX2) is not None, reason=f"{AVX2.name}: {why_not_run(AVX2)}")


@native
@pytest.mark.parametrize("kind", attention_cases.KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=3, deadline=None)
@given(random=st.randoms(use_true_random=False), threads=st.sampled_from((1, 3)))
def test_random_attention(kind: Callable[[Random], Case], random: Random, threads: int) -> None:
    with mock.patch.object(vector_unit, "_LEAST_SHARED", 0):
        check(kind(random), AVX2, threads)


@pytest.mark.parametrize("name", HOSTED_TARGETS)
def test_a_batch_on_every_target(runnable: Callable[[str], str], name: str, tmp_path: Path) -> None:
    target = load_target(runnable(name))
    cases = [kind(Random(seed)) for seed in range(1) for kind in attention_cases.KINDS]
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.expected(), err_msg=str(case))


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(0, 40))
def test_a_row_is_that_of_the_positions_that_it_sees(seed: int, rows: int, behind: int) -> None:
    """Many rows under a causal mask, as of a prompt, and one over a cache that is not full, as of a step."""
    rng, op = np.random.default_rng(seed), Attention(0.25, False)
    q, k, v = (rng.standard_normal((1, 2, n, 20)).astype(np.float32) for n in (rows, rows, rows))
    places = np.arange(rows)
    whole = op.reference(q, k, v, (places[None, None, None] > places[:, None]).astype(np.int8))
    at = int(rng.integers(rows))
    rest = rng.standard_normal((1, 2, behind, 20)).astype(np.float32)
    cache = [np.concatenate([x[:, :, : at + 1], rest], axis=2) for x in (k, v)]
    hidden = (np.arange(at + 1 + behind) > at).astype(np.int8)[None, None, None]
    one = op.reference(q[:, :, at : at + 1], *cache, hidden)
    assert np.array_equal(one.view(np.int32), whole[:, :, at : at + 1].view(np.int32))


def test_the_exponential_is_that_of_real_numbers_to_few_units() -> None:
    x = -np.linspace(0, 86, 20001, dtype=np.float32)
    exact = np.exp(x.astype(np.float64))
    assert np.max(np.abs(exponential(x) - exact) / exact) < 1.2e-7
    assert exponential(np.float32([0, -0.0])).tolist() == [1, 1]
