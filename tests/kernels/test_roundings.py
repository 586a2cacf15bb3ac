"""Kernels of devices that round once, and not in steps: the reference's values, whatever computes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from elementwise_cases import binary, pool
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import Case, check, layer_case, matmul_case, random_case, with_followers
from program_batch import run_batch

from hwptq.backends.backend import why_not_run
from hwptq.quant.fixed_point import ROUNDINGS, STEPS
from hwptq.targets import load_target

OTHERS = [rounding for rounding in ROUNDINGS if rounding != STEPS]


def _rounds(op: object) -> bool:
    return "rounding" in {f.name for f in fields(op)}  # type: ignore[arg-type]


def rounded_case(random: Random) -> Case:
    """A layer with followers, a sum, a product or a mean, of any rounding that is not the usual one."""
    make = random.choice((random_case, layer_case, matmul_case, binary, pool))
    case = make(random)
    if not _rounds(case.op):
        return rounded_case(random)
    rounding = random.choice(OTHERS)
    case = replace(case, op=replace(case.op, rounding=rounding))  # type: ignore[call-arg]
    if make is layer_case and random.random() < 0.5:
        case = with_followers(case, random)
    followers = [
        replace(f, op=replace(f.op, rounding=rounding)) if _rounds(f.op) else f  # type: ignore[call-arg]
        for f in case.followers
    ]
    return replace(case, followers=tuple(followers))


@pytest.mark.parametrize("name", ["x86-64-avx2", "x86-64-vnni"])
@settings(max_examples=6)
@given(random=st.randoms(use_true_random=False))
def test_native_kernels(name: str, random: Random) -> None:
    target = load_target(name)
    if (reason := why_not_run(target)) is not None:
        pytest.skip(reason)
    check(rounded_case(random), target)


@pytest.mark.parametrize("name", ["arm-cortex-a", "arm-cortex-m55"])
def test_kernels_of_models_of_arithmetic(name: str, runnable: Callable[[str], str], tmp_path: Path) -> None:
    cases = [rounded_case(Random(seed)) for seed in range(10)]
    for case, result in zip(cases, run_batch(cases, load_target(runnable(name)), tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.in_order(), err_msg=str(case))
