"""The kernels for HVX under qemu-hexagon: operators without weights, vectors with masked tails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from elementwise_cases import CPU_KINDS
from kernel_cases import CHANNELS, Case, conv_case, depthwise_case, int8, matmul_case, scales, type_of
from program_batch import run_batch

from hwptq.kernels.pack_input import Packing
from hwptq.operators.conv2d import Conv2d
from hwptq.targets import Descriptor, load_target
from hwptq.tir.layout import Layout, Padding
from hwptq.tir.vector_unit import VectorUnit

CASES = 5  # of each kind


@pytest.fixture(scope="module")
def target(runnable: Callable[[str], str]) -> Descriptor:
    return load_target(runnable("hexagon-v66-npu"))


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_operators_without_weights(kind, target: Descriptor, tmp_path: Path) -> None:
    cases = [kind(Random(seed)) for seed in range(CASES)]
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.expected(), err_msg=str(case))


def test_depthwise(target: Descriptor, tmp_path: Path) -> None:
    cases = [depthwise_case(Random(seed)) for seed in range(10)]
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.expected(), err_msg=str(case))


def wide_depthwise_case(random: Random) -> Case:
    """A depthwise Conv2d with strides, whose rows take several vectors of pixels of 24 to 192 channels."""
    channels = random.choice((24, 40, 48, 72, 96, 130, 192))
    kernel, strides = random.choice(((3, 3), (3, 3), (2, 4))), random.choice(((2, 2), (1, 2), (3, 3)))
    sides = [random.randint(0, 2) for _ in range(4)]
    padding = sides[0], sides[1], sides[2], sides[3]
    zero = random.choice((-128, 0, 5))
    op = Conv2d(strides, padding, (1, random.choice((1, 2))), channels, zero, 3, -128, 127)
    x = int8(random, random.choice((1, 2)), random.randint(6, 13), random.randint(9, 21), channels)
    weight = int8(random, channels, *kernel, 1)
    return Case(op, (x,), (weight, *scales(random, channels, kernel[0] * kernel[1])))


def test_depthwise_with_strides_reads_the_image_as_it_is(target: Descriptor, tmp_path: Path) -> None:
    cases = [wide_depthwise_case(Random(seed)) for seed in range(4)]
    assert all(len(case.steps(target)) == 1 for case in cases)
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.expected(), err_msg=str(case))


def test_products_of_two_activations_by_vrmpy(target: Descriptor, tmp_path: Path) -> None:
    cases = [matmul_case(Random(seed)) for seed in range(16)]
    assert {case.activations[0].shape[-1] % 4 for case in cases} >= {0, 1, 3}
    assert any(case.activations[1].shape[-1] < 32 for case in cases)
    assert {case.steps(target)[-1].name for case in cases} == {"matmul_dot_product"}
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.expected(), err_msg=str(case))


def fits(case: Case, target: Descriptor) -> bool:
    """Whether a row of a convolution fits into the scratchpad."""
    try:
        case.steps(target)
    except ValueError as error:
        if "bytes of scratchpad, the device has" not in str(error):
            raise
        return False
    return True


@pytest.mark.parametrize("scratchpad", [2048, 2**18])
def test_inputs_are_packed_into_the_scratchpad_as_a_whole_or_in_bands(
    scratchpad: int, target: Descriptor, tmp_path: Path
) -> None:
    target = replace(target, memory=replace(target.memory, scratchpad=scratchpad))
    cases = []
    for seed in range(8):
        random = Random(seed)
        channels = random.choice((3, 8, 20, 33))
        groups = random.choice((1, channels))
        case = conv_case(random, channels, channels if groups > 1 else random.choice(CHANNELS), groups)
        cases += [case] if fits(case, target) else []
    packed = [
        Packing(type_of(c.activations[0]), Layout(Padding(*c.op.padding)), VectorUnit(128)).elements
        for c in cases
    ]
    assert any(size > scratchpad for size in packed) == (scratchpad < 10_000)
    assert all(step.name != "pack_input" for case in cases for step in case.steps(target))
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.expected(), err_msg=str(case))


def test_a_row_that_does_not_fit_into_the_scratchpad_is_an_error():
    target = load_target("hexagon-v66-npu")
    target = replace(target, memory=replace(target.memory, scratchpad=100))
    x, weight = np.zeros((1, 8, 8, 16), np.int8), np.zeros((8, 3, 3, 16), np.int8)
    ones = np.ones(8, np.int32)
    op = Conv2d((1, 1), (1, 1, 1, 1), (1, 1), 1, 0, 0, -128, 127)
    case = Case(op, (x,), (weight, ones, ones * 2**30, ones))
    with pytest.raises(ValueError, match="needs 480 bytes of scratchpad, the device has 100"):
        case.steps(target)
