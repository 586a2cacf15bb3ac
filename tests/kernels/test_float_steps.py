"""Quantize without instructions that divide and round: the same codes, in emitted code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import Case, check

from hwptq.backends.backend import why_not_run
from hwptq.operators.quantize import Quantize
from hwptq.quant.fma import fma
from hwptq.targets import load_target

AVX2 = load_target("x86-64-avx2")
STEPWISE = replace(AVX2, elementwise=replace(AVX2.elementwise, divides=False))
native = pytest.mark.skipif(why_not_run(AVX2) is not None, reason=f"{AVX2.name}: {why_not_run(AVX2)}")

scales = st.floats(2.0**-40, 2.0**40, width=32)


def near_halves(scale: float, seed: int, reach: int) -> np.ndarray:
    """Values whose quotients lie at a half or beside it, where a last bit decides, and extremes."""
    rng = np.random.default_rng(seed)
    halves = rng.integers(-reach, reach, 40).astype(np.float32) + np.float32(0.5)
    exact = (halves * np.float32(scale)).astype(np.float32)
    beside = [exact, np.nextafter(exact, np.float32(np.inf)), np.nextafter(exact, np.float32(-np.inf))]
    odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-38, 3e38], np.float32)
    return np.concatenate([*beside, odd])


@native
@settings(max_examples=6, deadline=None)
@given(scale=scales, seed=st.integers(0, 2**32 - 1), out=st.sampled_from(("int8", "int16")))
def test_the_same_codes(scale: float, seed: int, out: str) -> None:
    zero = (-128, -3, 0, 127)[seed % 4] if out == "int8" else 0
    check(Case(Quantize(scale, zero, out), (near_halves(scale, seed, 300),), ()), STEPWISE)


@settings(max_examples=200, deadline=None)
@given(scale=scales, seed=st.integers(0, 2**32 - 1))
def test_steps_make_the_quotient_of_a_division(scale: float, seed: int) -> None:
    """The formula itself, for all quotients that codes may come from."""
    divisor = np.float32(scale)
    x = near_halves(scale, seed, 2**16)[:-8]
    factor = np.float32(1) / divisor
    found = x * factor
    for _ in range(2):
        found = fma(fma(found, -divisor, x), factor, found)
    np.testing.assert_array_equal(found, x / divisor)
