"""Transposes of single bytes by tiles against numpy, exactly, on this CPU and on emulated ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_targets import HOSTED_TARGETS
from kernel_cases import Case, int8, run, type_of
from program_batch import run_batch

from hwptq.backends.backend import why_not_run
from hwptq.kernels.transpose_tiles import transpose_tiles
from hwptq.operators.lookup import Lookup
from hwptq.targets import Descriptor, load_target
from hwptq.tir import vector_unit
from hwptq.tir.kernel import Step
from hwptq.tir.loops import row_major
from hwptq.tir.vector_unit import unit_of

AVX2, VNNI = load_target("x86-64-avx2"), load_target("x86-64-vnni")
SIDES = (16, 17, 31, 32, 40, 47, 64, 85)
#: axes of a tensor whose last two, neighbours joined, change places
MOVES = ((0, 2, 3, 1), (0, 3, 1, 2), (1, 0), (1, 0, 3, 2))


@dataclass(frozen=True)
class Movement(Case):
    """A transpose by `axes` of the slice of a tensor that begins at `begin` in its first axis."""

    axes: tuple[int, ...] = ()
    begin: int = 0

    def expected(self) -> np.ndarray:
        """By numpy."""
        return np.ascontiguousarray(self.activations[0][self.begin :].transpose(self.axes))

    def step(self, target: Descriptor, threads: int = 1) -> Step | None:
        """The kernel, if there is one."""
        x, steps = self.activations[0], row_major(self.activations[0].shape)
        strides, first = [steps[a] for a in self.axes], self.begin * steps[0]
        return transpose_tiles(type_of(x), strides, first, type_of(self.expected()), unit_of(target, threads))

    def steps(self, target: Descriptor, threads: int = 1) -> tuple[Step, ...]:
        """The kernel."""
        step = self.step(target, threads)
        assert step is not None
        return (step,)


def movement(random: Random) -> Movement:
    """A transpose that fills tiles."""
    axes = random.choice(MOVES)
    ends = {axes[-1], len(axes) - 1}
    shape = [random.choice(SIDES) if a in ends else random.randint(1, 3) for a in range(len(axes))]
    begin = random.randint(0, shape[0] - 1) if 0 not in ends else 0
    return Movement(Lookup(), (int8(random, *shape),), (), axes=axes, begin=begin)


@pytest.mark.parametrize("target", [AVX2, VNNI], ids=lambda t: t.name)
@settings(max_examples=12, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 3))
def test_on_this_cpu(target: Descriptor, random: Random, threads: int) -> None:
    if why_not_run(target):
        pytest.skip(f"{target.name}: {why_not_run(target)}")
    case = movement(random)
    with mock.patch.object(vector_unit, "_LEAST_SHARED", 0):
        result = run(case.activations, case.steps(target, threads), target)
    np.testing.assert_array_equal(result, case.expected())


def tiles(name: str) -> bool:
    return movement(Random(0)).step(load_target(name)) is not None


@pytest.mark.parametrize("name", [name for name in HOSTED_TARGETS if tiles(name)])
def test_on_other_cpus(runnable: Callable[[str], str], name: str, tmp_path: Path) -> None:
    cases = [movement(Random(seed)) for seed in range(12)]
    for case, result in zip(cases, run_batch(cases, load_target(runnable(name)), tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.expected(), err_msg=str(case))


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((15, 64), (1, 0)),
        ((16, 2, 16), (2, 1, 0)),
        ((2, 64, 3), (0, 2, 1)),
        ((64, 4, 64), (1, 0, 2)),
        ((16, 3, 16), (0, 2, 1)),
    ],
)
def test_what_fills_no_tile_or_keeps_its_neighbours_has_no_kernel(shape, axes) -> None:
    assert Movement(Lookup(), (np.zeros(shape, np.int8),), (), axes=axes).step(AVX2) is None


def test_vectors_of_less_than_a_tile_and_masked_ones_have_no_kernel() -> None:
    assert not tiles("arm-cortex-m4")
    assert not tiles("hexagon-v66-npu")
    assert tiles("arm-cortex-a53")
