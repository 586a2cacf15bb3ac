"""Every tile that --tune may choose computes the bits of the reference, at odd sizes too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from integer_targets import HOSTED_TARGETS
from kernel_cases import (
    CHANNELS,
    Case,
    conv_case,
    dense_case,
    depthwise_case,
    matmul_case,
    pointwise_case,
    with_layouts,
)
from program_batch import run_batch
from tvm_ffi import StructuralKey

from hwptq.kernels.choose_tile import fit, tiles
from hwptq.kernels.convolution import Convolution
from hwptq.kernels.dot_product import mac_of
from hwptq.kernels.register_tile import Tile
from hwptq.operators.conv2d import Conv2d
from hwptq.targets import load_target
from hwptq.tuning.tune import CANDIDATES


def layer(random: Random) -> Case:
    """A layer that has tiles."""
    kind = random.choice((conv_case, conv_case, pointwise_case, dense_case, matmul_case))
    if kind is conv_case:
        return conv_case(random, random.choice(CHANNELS), random.choice((*CHANNELS, 96, 130)))
    return kind(random, random.randint(1, 40)) if kind is pointwise_case else kind(random)


@pytest.mark.parametrize("name", HOSTED_TARGETS)
def test_all_tiles_compute_the_reference(runnable: Callable[[str], str], name: str, tmp_path: Path) -> None:
    target = load_target(runnable(name))
    layers = [layer(Random(seed)) for seed in range(7)]
    layers += [depthwise_case(Random(seed), (6, 9)) for seed in range(3)]
    cases = [
        replace(with_layouts(one, Random(seed), target), tile=tile)
        for seed, one in enumerate(layers)
        for tile in range(1, CANDIDATES)
    ]
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.in_order(), err_msg=str(case))


def test_tiles_are_different_code() -> None:
    ones = np.ones(96, np.int32)
    constants = (np.ones((96, 3, 3, 16), np.int8), ones, 2**30 * ones, ones)
    op = Conv2d((1, 1), (0, 0, 0, 0), (1, 1), 1, 3, -7, -128, 127)
    case = Case(op, (np.ones((1, 4, 16, 16), np.int8),), constants)
    target = load_target("x86-64-vnni")
    kernels = {StructuralKey(replace(case, tile=t).steps(target)[-1].func) for t in range(CANDIDATES)}
    assert len(kernels) == CANDIDATES


@pytest.mark.parametrize(
    ("name", "width", "count"), [("x86-64-avx2", 14, 3), ("x86-64-vnni", 14, 3), ("arm-cortex-a", 14, 3)]
)
def test_depthwise_kernels_have_candidates_too(name: str, width: int, count: int) -> None:
    ones = np.ones(64, np.int32)
    constants = (np.ones((64, 3, 3, 1), np.int8), ones, 2**30 * ones, ones)
    op = Conv2d((1, 1), (1, 1, 1, 1), (1, 1), 64, 3, -7, -128, 127)
    case = Case(op, (np.ones((1, 4, width, 64), np.int8),), constants)
    target = load_target(name)
    kernels = {StructuralKey(replace(case, tile=t).steps(target)[-1].func) for t in range(CANDIDATES)}
    assert len(kernels) == count


def test_the_first_tile_is_that_without_tuning() -> None:
    mac = mac_of(load_target("x86-64-vnni").kernels["vpdpbusd"])
    conv = Convolution(1, (14, 14), 64, (14, 14), 96, (1, 1), (1, 1), (1, 1))
    found = tiles(conv, mac, Tile(7, 2), 4, interleaved=False)
    assert found[0] == fit(conv, mac, Tile(7, 2), 4) == Tile(7, 2)
    assert len(set(found)) == len(found) >= CANDIDATES
    assert fit(conv, mac, Tile(7, 2), 4, choice=99) == found[-1]
