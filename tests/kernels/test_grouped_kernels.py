"""Int4 weights with a factor for each group: unpacked in kernels, exact, and as few bytes as promised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from random import Random

import numpy as np
import pytest
from kernel_cases import Case, int8, scales
from program_batch import run_batch

from hwptq.kernels.pack_groups import pack_grouped
from hwptq.kernels.pack_weights import pack_weights
from hwptq.operators.conv2d import Conv2d
from hwptq.operators.dense import Dense, DenseFloat
from hwptq.quant.weight_groups import GROUPED, LARGEST_FACTOR
from hwptq.targets import load_target

TARGETS = ("x86-64-vnni", "x86-64-avx2", "arm-cortex-a", "arm-cortex-a-i8mm")
#: (input channels, output channels, kernel, group): whole groups, a short last one, tails of vectors.
CONVOLUTIONS = (
    (64, 20, (1, 1), 32),
    (40, 33, (1, 1), 32),
    (70, 5, (1, 1), 16),
    (37, 16, (1, 1), 16),
    (32, 17, (3, 3), 32),
    (64, 64, (3, 2), 32),
    (32, 24, (1, 4), 16),
    (48, 3, (5, 1), 16),
)


def grouped_weights(random: Random, size: int, *shape: int) -> np.ndarray:
    """int8 [O, ..., I]: int4 values times factors, now and then all at a limit."""
    rng = np.random.default_rng(random.getrandbits(32))
    factors = rng.integers(1, LARGEST_FACTOR + 1, (*shape[:-1], -(-shape[-1] // size)))
    values = rng.integers(-GROUPED.qmax, GROUPED.qmax + 1, shape)
    if random.choice((True, False, False)):
        factors[:], values[:] = LARGEST_FACTOR, random.choice((-GROUPED.qmax, GROUPED.qmax))
    return (values * np.repeat(factors, size, axis=-1)[..., : shape[-1]]).astype(np.int8)


def cases(seed: int) -> list[Case]:
    """Every convolution on a small image, and dense layers on one row and on several."""
    random, found = Random(seed), []
    for channels_in, channels_out, kernel, size in CONVOLUTIONS:
        strides, dilation = random.choice(((1, 1), (2, 1))), random.choice(((1, 1), (1, 2)))
        op = Conv2d(strides, (1, 0, 0, 1), dilation, 1, -3, 5, -128, 127, weight_bits=4, weight_group=size)
        x = int8(random, 1, 6, random.choice((9, 12)), channels_in)
        found.append(case(op, x, random, channels_out, *kernel, channels_in))
    for rows, depth, channels, size in (((1,), 100, 33, 32), ((5,), 96, 7, 16), ((2, 3), 64, 40, 32)):
        op = Dense(-128, 3, -90, 127, weight_bits=4, weight_group=size)
        dense = case(op, int8(random, *rows, depth), random, channels, depth)
        weight, bias, *_ = dense.constants
        scale = np.linspace(1e-3, 2, channels).astype(np.float32)
        real = DenseFloat(weight_bits=4, weight_group=size)
        found += [dense, Case(real, dense.activations, (weight, bias, scale))]
    return found


def case(op, x: np.ndarray, random: Random, *shape: int) -> Case:
    """`op` on x, with weights of `shape`."""
    weight = grouped_weights(random, op.weight_group, *shape)
    return Case(op, (x,), (weight, *scales(random, shape[0], prod(shape[1:]))))


@pytest.mark.parametrize("name", TARGETS)
def test_kernels_equal_the_reference(runnable: Callable[[str], str], name: str, tmp_path: Path):
    target = load_target(runnable(name))
    batch = cases(0)
    for found, result in zip(batch, run_batch(batch, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, found.expected(), err_msg=str(found))


@pytest.mark.parametrize("name", TARGETS)
def test_kernels_hold_a_nibble_a_weight_and_a_byte_a_factor(name: str):
    target, random = load_target(name), Random(2)
    op = Conv2d((1, 1), (0, 0, 0, 0), (1, 1), 1, 0, 0, -128, 127, weight_bits=4, weight_group=32)
    found = case(op, int8(random, 1, 4, 4, 128), random, 64, 1, 1, 128)
    packed = found.steps(target)[-1].args[1]
    assert packed.nbytes == 64 * 128 // 2 + 64 * 128 // 32
    plain = replace(found, op=replace(op, weight_group=0, weight_bits=8))
    assert plain.steps(target)[-1].args[1].nbytes == 64 * 128


def test_the_order_of_packed_factors():
    """Two vectors of two lanes, taking turns row by row; two groups of two elements in each of two runs."""
    factors = np.arange(1, 17).reshape(4, 2, 2)  # [O, runs, groups]
    weight = np.repeat(factors, 2, axis=2).astype(np.int8)  # w = 1 everywhere
    weight[..., ::2] *= -7
    values = np.broadcast_to(np.array([-112, 16, -112, 16], np.int8), weight.shape)
    rows = pack_weights(values, 4, 2, 2, 4, 2)
    packed = pack_grouped(weight, 4, 2, 2, 2, 2)
    assert np.array_equal(packed[: len(rows)], rows)
    order = [1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 4, 8, 12, 16]  # by run and group, then by channel
    assert packed[len(rows) :].reshape(-1).tolist() == order
