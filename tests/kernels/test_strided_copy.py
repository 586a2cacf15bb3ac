"""Transposes and slices of int8 against numpy, exactly: by kernels where whole runs move."""

from __future__ import annotations

from random import Random
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import int8, run, type_of
from tvm import relax

from hwptq.backends.backend import why_not_run
from hwptq.kernels.strided_copy import strided_copy
from hwptq.passes.graph.movement import walk
from hwptq.targets import load_target
from hwptq.tir import vector_unit
from hwptq.tir.vector_unit import unit_of

AVX2, VNNI = load_target("x86-64-avx2"), load_target("x86-64-vnni")
native = pytest.mark.parametrize("target", [AVX2, VNNI], ids=lambda t: t.name)


def call_of(function: Any, shape: tuple[int, ...]) -> Any:
    """A Relax call on an int8 tensor, with its type."""
    x = relax.Var("x", relax.TensorType(shape, "int8"))
    return relax.BlockBuilder().normalize(function(x))


def check(function: Any, x: np.ndarray, expected: np.ndarray, target: Any, threads: int) -> bool:
    """Fail unless the kernel of a call gives `expected`; False where it has none."""
    if why_not_run(target):
        pytest.skip(f"{target.name}: {why_not_run(target)}")
    way = walk(call_of(function, x.shape))
    expected = np.ascontiguousarray(expected)
    if way is None:
        return False
    with mock.patch.object(vector_unit, "_LEAST_SHARED", 0):
        step = strided_copy(type_of(x), way.strides, way.first, type_of(expected), unit_of(target, threads))
    if step is not None:
        np.testing.assert_array_equal(run([x], (step,), target), expected)
    return step is not None


shapes = st.lists(st.integers(1, 5), min_size=1, max_size=5)
channels = st.sampled_from((1, 2, 3, 8, 17, 64, 130))


@native
@settings(max_examples=25, deadline=None)
@given(st.data(), shapes, channels, st.integers(1, 3))
def test_transposes_that_keep_the_last_axis(target, data, shape, last, threads):
    axes = [*data.draw(st.permutations(range(len(shape)))), len(shape)]
    x = int8(Random(len(shape)), *shape, last)
    moves = check(lambda v: relax.op.permute_dims(v, axes), x, x.transpose(axes), target, threads)
    assert moves or last == 1


@native
@settings(max_examples=25, deadline=None)
@given(st.data(), shapes, channels, st.integers(1, 3))
def test_slices(target, data, shape, last, threads):
    shape = [*shape, last]
    begin = [data.draw(st.integers(0, n - 1)) for n in shape]
    end = [data.draw(st.integers(b + 1, n + 3)) for b, n in zip(begin, shape, strict=True)]
    steps = [*(data.draw(st.integers(1, 3)) for _ in shape[1:]), 1]
    x = int8(Random(last), *shape)
    expected = x[tuple(map(slice, begin, end, steps))]
    axes = list(range(len(shape)))
    moves = check(lambda v: relax.op.strided_slice(v, axes, begin, end, steps), x, expected, target, threads)
    assert moves or expected.shape[-1] == 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x: relax.op.strided_slice(x, [1], [7], [0], [-1]),
        lambda x: relax.op.reshape(x, (24, 8)),
        lambda x: relax.op.flip(x, 1),
    ],
)
def test_what_has_no_such_walk(function):
    assert walk(call_of(function, (3, 8, 8))) is None


def test_a_transpose_that_moves_single_elements_has_no_kernel():
    call = call_of(lambda x: relax.op.permute_dims(x, [0, 2, 1]), (3, 8, 8))
    way, x = walk(call), type_of(np.zeros((3, 8, 8), np.int8))
    assert strided_copy(x, way.strides, way.first, x, unit_of(AVX2)) is None
