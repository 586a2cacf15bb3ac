"""Windows of short rows, gathered to whole vectors: their order, which are, and their code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from kernel_cases import Case, int8, scales, weights, with_followers, with_layouts
from program_batch import run_batch

from hwptq.kernels.convolution import describe
from hwptq.kernels.gather_bytes import reordered
from hwptq.kernels.reducing_dot_product import mac_of
from hwptq.kernels.register_tile import window_offsets
from hwptq.kernels.tiled import gathers, wanted_layout
from hwptq.operators.conv2d import Conv2d
from hwptq.targets import load_target
from hwptq.targets.templates.reducing_dot_product import ReducingDotKernel

M55 = "arm-cortex-m55"


def case_of(seed: int, channels: int, kernel: tuple[int, int], bits: int = 8, dilation: int = 1) -> Case:
    """A convolution of an image of few channels with a border, to 3 … 20 channels."""
    random = Random(seed)
    co, stride = random.randint(3, 20), random.randint(1, 2)
    reach = [dilation * (k - 1) for k in kernel]
    padding = (reach[0] // 2, reach[1] // 2, reach[0] - reach[0] // 2, reach[1] // 2)
    op = Conv2d((stride, stride), padding, (dilation,) * 2, 1, -7, 5, -128, 127, weight_bits=bits)
    depth = channels * kernel[0] * kernel[1]
    constants = (weights(random, bits, co, *kernel, channels), *scales(random, co, depth))
    return Case(op, (int8(random, 1, 9, 8, channels),), constants)


def is_gathered(case: Case, kernel: ReducingDotKernel) -> bool:
    (x, out), weight, mac = case.types(), case.constants[0], mac_of(kernel)
    assert isinstance(case.op, Conv2d)
    read = replace(x, layout=wanted_layout(case.op, x, weight.shape, out, mac))
    return gathers(describe(case.op, read, weight.shape, out), mac, case.op)


@pytest.mark.parametrize(
    ("channels", "kernel", "taken"),
    [
        (1, (10, 4), True),  # 10 rows of 4: 3 vectors instead of 10
        (1, (3, 3), True),
        (2, (3, 3), False),  # 2 vectors instead of 3: a gather costs more
        (8, (3, 3), False),  # rows of 24 fill as many
        (16, (3, 3), False),
        (1, (1, 9), False),  # one row
        (40, (7, 2), False),  # too many to be written out
    ],
)
def test_which_windows_are_gathered(channels: int, kernel: tuple[int, int], taken: bool) -> None:
    table = load_target(M55).kernels["vmladava"]
    assert isinstance(table, ReducingDotKernel)
    case = case_of(0, channels, kernel)
    assert is_gathered(case, table) == taken
    assert not is_gathered(case, replace(table, gather=""))


def test_the_order_of_elements() -> None:
    assert reordered(np.arange(1, 7, dtype=np.int8), 4).tolist() == [1, 3, 2, 4, 5, 0, 6, 0]


def test_offsets_are_those_of_the_weights() -> None:
    case = case_of(1, 2, (3, 2), dilation=2)
    (x, out), weight = case.types(), case.constants[0]
    conv = describe(case.op, replace(x, layout=wanted_layout(case.op, x, weight.shape, out, mac_of(
        ReducingDotKernel("dot", 16)))), weight.shape, out)  # fmt: skip
    width = conv.image[1] * 2
    expected = [2 * ky * width + 2 * kx * 2 + c for ky in range(3) for kx in range(2) for c in range(2)]
    assert window_offsets(conv).tolist() == expected


def test_their_code(runnable: Callable[[str], str], tmp_path: Path) -> None:
    """int8 and int4 weights, strides, dilations, windows of 1 to 5 vectors, layouts and followers."""
    target = load_target(runnable(M55))
    kernel = target.kernels["vmladava"]
    assert isinstance(kernel, ReducingDotKernel)
    shapes = ((1, (10, 4)), (1, (3, 3)), (2, (3, 3)), (1, (5, 5)), (3, (5, 5)), (1, (8, 2)), (5, (4, 1)))
    cases = [
        case_of(seed, channels, size, bits, dilation)
        for seed, (channels, size) in enumerate(shapes)
        for bits in (8, 4)
        for dilation in (1, 2)
    ]
    assert sum(is_gathered(case, kernel) for case in cases) >= 20
    cases += [with_followers(case, Random(i)) for i, case in enumerate(cases)]
    cases = [with_layouts(case, Random(i), target) for i, case in enumerate(cases)]
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.in_order(), err_msg=str(case))
