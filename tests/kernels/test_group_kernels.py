"""Operators on weights by group against the reference, exactly, on every target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import group_cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_targets import HOSTED_TARGETS
from kernel_cases import Case, check
from program_batch import run_batch

from hwptq.backends.backend import why_not_run
from hwptq.operators.group_dense import GroupDense, GroupEmbedding
from hwptq.targets import load_target

NATIVE = [t for t in map(load_target, ("x86-64-avx2", "x86-64-vnni")) if why_not_run(t) is None]


@pytest.mark.parametrize("target", NATIVE, ids=lambda t: t.name)
@pytest.mark.parametrize("kind", group_cases.KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=8, deadline=None)
@given(random=st.randoms(use_true_random=False), threads=st.sampled_from((1, 3)))
def test_random_operators(target, kind: Callable, random: Random, threads: int) -> None:
    check(kind(random), target, threads)


@pytest.mark.parametrize("name", ["x86-64-vnni", "x86-64-avx2", "arm-cortex-a"])
@pytest.mark.parametrize("weight", group_cases.WEIGHTS)
def test_usual_layers_have_a_kernel(name: str, weight: str) -> None:
    rows = group_cases.rows(Random(1), weight, 32, 64, 32)[:2]
    for arrays in (rows, (*rows, np.ones((32, 2), np.int8))):
        case = Case(GroupDense(weight, 32, 64), (np.ones((1, 3, 64), np.int8),), arrays)
        assert case.steps(load_target(name))[-1].name == "group_dense_group_dot_product"


@pytest.mark.parametrize("target", NATIVE, ids=lambda t: t.name)
@pytest.mark.parametrize("weight", group_cases.WEIGHTS)
def test_zeros_and_activations_at_the_ends_of_their_range(target, weight: str) -> None:
    rows = group_cases.rows(Random(5), weight, 33, 96, 32)[:2]
    x = np.full((1, 5, 96), -128, np.int8)
    x[:, 1:3] = 127
    for zero in (-128, 127):
        zeros = np.full((33, 3), zero, np.int8)
        check(Case(GroupDense(weight, 32, 96), (x,), (*rows, zeros)), target)


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("weight", ["int8", "int4", "int3"])
def test_a_look_up_reads_the_bytes_that_a_dense_layer_multiplies(tokens: int, weight: str) -> None:
    rows = group_cases.rows(Random(1), weight, 72, 64, 32)[:2]
    head = Case(GroupDense(weight, 32, 64), (np.ones((1, tokens, 64), np.int8),), rows)
    table = Case(GroupEmbedding(weight, 32, 64), (np.zeros((1, tokens), np.int64),), rows)
    target = load_target("x86-64-vnni")
    arrays = [[a for a in case.steps(target)[-1].args if isinstance(a, np.ndarray)] for case in (head, table)]
    for a, b in zip(*arrays, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["arm-cortex-a53", "riscv64-rvv"])
def test_others_have_portable_code(name: str) -> None:
    rows = group_cases.rows(Random(1), "int4", 32, 64, 32)[:2]
    case = Case(GroupDense("int4", 32, 64), (np.ones((1, 3, 64), np.int8),), rows)
    assert [step.name for step in case.steps(load_target(name))] == ["group_dense_portable"]


@pytest.mark.parametrize("name", HOSTED_TARGETS)
def test_a_batch_on_every_target(runnable: Callable[[str], str], name: str, tmp_path: Path) -> None:
    target = load_target(runnable(name))
    cases = [kind(Random(seed)) for seed in range(4) for kind in group_cases.KINDS]
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.expected(), err_msg=str(case))
