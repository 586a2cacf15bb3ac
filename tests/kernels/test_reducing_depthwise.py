"""Depthwise convolutions by dot products of gathered elements: their tilings, and their code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import Case, depthwise_case, int8, scales, with_layouts
from program_batch import run_batch

from hwptq.kernels.convolution import Convolution
from hwptq.kernels.patches import Tiling, best_tiling, tilings
from hwptq.operators.conv2d import Conv2d
from hwptq.targets import load_target
from hwptq.targets.templates.reducing_depthwise import ReducingDepthwiseKernel

KERNEL = ReducingDepthwiseKernel("dot", 16, "gather", "scatter")
TEMPLATE = "conv2d_reducing_depthwise"


@st.composite
def convolutions(draw: st.DrawFn) -> Convolution:
    pair = st.tuples(st.integers(1, 5), st.integers(1, 5))
    kernel, strides, dilation, out = (draw(pair) for _ in range(4))
    out = out[0] + 1, out[1] + 1
    image = tuple(
        (o - 1) * s + (k - 1) * d + 1 + draw(st.integers(0, 2))
        for o, s, k, d in zip(out, strides, kernel, dilation, strict=True)
    )
    channels = draw(st.integers(1, 3))
    return Convolution(1, image, channels, out, channels, kernel, strides, dilation)  # type: ignore[arg-type]


def sums_by_patches(tiling: Tiling, image: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """int32 [OH,OW,C] of int8 [H,W,C], as code of the tiling adds it up."""
    conv, packed = tiling.conv, tiling.pack(weight)
    length = tiling.vectors * tiling.k
    flat = image.reshape(-1).astype(np.int64)
    found = np.full((*conv.out, conv.ci), 2**40)
    offsets = np.concatenate(tiling.offsets)
    for row in range(conv.out[0] - tiling.patch[0] + 1):
        for column in range(conv.out[1] - tiling.patch[1] + 1):
            for c in range(conv.ci):
                patch = np.full(length, 999)  # what is loaded beyond the elements meets weights of 0
                patch[: len(offsets)] = flat[conv.window(0, row, column) + c + offsets]
                for start, (r, x) in zip(tiling.starts, np.ndindex(*tiling.patch), strict=True):
                    found[row + r, column + x, c] = patch @ packed[c, start : start + length].astype(np.int64)
    return found


@given(convolutions(), st.integers(0, 2**32 - 1))
def test_patches_add_up_what_windows_do(conv: Convolution, seed: int):
    rng = np.random.default_rng(seed)
    image = rng.integers(-128, 128, (*conv.image, conv.ci)).astype(np.int8)
    weight = rng.integers(-128, 128, (conv.ci, *conv.kernel)).astype(np.int8)
    expected = np.zeros((*conv.out, conv.ci), np.int64)
    for ky, kx in np.ndindex(*conv.kernel):
        rows, columns = (
            slice(t * d, t * d + (o - 1) * s + 1, s)
            for t, d, o, s in zip((ky, kx), conv.dilation, conv.out, conv.strides, strict=True)
        )
        expected += image[rows, columns].astype(np.int64) * weight[:, ky, kx]
    for tiling in tilings(conv, KERNEL):
        assert prod(tiling.tile) == KERNEL.lanes
        np.testing.assert_array_equal(sums_by_patches(tiling, image, weight), expected, err_msg=str(tiling))


def conv3x3(stride: int, out: tuple[int, int], channels: int = 8, dilation: int = 1) -> Convolution:
    image = tuple((o - 1) * stride + 2 * dilation + 1 for o in out)
    return Convolution(1, image, channels, out, channels, (3, 3), (stride,) * 2, (dilation,) * 2)  # type: ignore[arg-type]


def test_the_weights_of_a_3x3_window_are_stored_once():
    tiling = best_tiling(conv3x3(1, (8, 8)), KERNEL)
    assert tiling is not None
    assert (tiling.tile, tiling.patch, tiling.vectors) == ((2, 2), (2, 2), 1)
    assert tiling.starts == [5, 4, 1, 0]
    assert tiling.stored == 21


@pytest.mark.parametrize(
    ("conv", "taken"),
    [
        (conv3x3(1, (8, 8)), True),
        (conv3x3(2, (8, 8)), True),
        (conv3x3(1, (1, 3)), False),  # fewer pixels than a tile has
        (conv3x3(1, (8, 8), channels=5000), False),  # an offset beyond a halfword
        (replace(conv3x3(1, (8, 8)), kernel=(1, 1)), False),  # a vector for one product
    ],
)
def test_which_convolutions_are_taken(conv: Convolution, taken: bool):
    assert (best_tiling(conv, KERNEL) is not None) == taken


def test_code_of_all_tilings(runnable: Callable[[str], str], tmp_path: Path):
    """The best tiling and others, of random windows, strides, dilations and layouts."""
    target = load_target(runnable("arm-cortex-m55"))
    cases = [depthwise_case(Random(seed), (9, 9)) for seed in range(60)]
    cases = [replace(c, tile=seed % 4) for seed, c in enumerate(cases)]
    cases = [with_layouts(case, Random(seed), target) for seed, case in enumerate(cases)]
    taken = [case for case in cases if case.steps(target)[-1].name == TEMPLATE]
    assert len(taken) >= 20
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.in_order(), err_msg=str(case))


def test_extreme_values(runnable: Callable[[str], str], tmp_path: Path):
    """The largest sums there are, of 7 x 7 windows, clipped at both ends."""
    target, cases = load_target(runnable("arm-cortex-m55")), []
    for x, w in ((-128, -128), (-128, 127), (127, -128), (127, 127)):
        op = Conv2d((1, 1), (3, 3, 3, 3), (1, 1), 6, -128, -128, -128, 127)
        image, weight = np.full((1, 9, 8, 6), x, np.int8), np.full((6, 7, 7, 1), w, np.int8)
        cases.append(Case(op, (image,), (weight, *scales(Random(0), 6, 49))))
    image, weight = int8(Random(1), 1, 9, 8, 6), int8(Random(2), 6, 7, 7, 1)
    cases.append(Case(cases[0].op, (image,), (weight, *scales(Random(0), 6, 49))))
    assert {case.steps(target)[-1].name for case in cases} == {TEMPLATE}
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.expected(), err_msg=str(case))
