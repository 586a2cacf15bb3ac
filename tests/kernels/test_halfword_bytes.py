"""Layers on int16 by instructions on bytes: what their kernels are, and that nothing is proven too much."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from kernel_cases import Case

from hwptq.kernels.halfword_bytes import biases_of_halves, splits
from hwptq.kernels.result_range import proven
from hwptq.operators.conv2d import Conv2d
from hwptq.operators.dense import Dense
from hwptq.targets import load_target

DENSE = Dense(0, 0, -128, 127, activation_bits=16)


def _constants(channels: int, depth: int, weight: int = 100, bias: int = 0) -> tuple[np.ndarray, ...]:
    full = [np.full(channels, v, np.int32) for v in (bias, 2**30, 12)]
    return np.full((channels, depth), weight, np.int8), *full


def test_longer_sums_are_taken_as_far_as_a_byte_of_them_is_shortened():
    constants = _constants(3, 1000)
    assert splits(DENSE, constants)
    assert splits(replace(DENSE, acc_shift=8), constants)
    assert not splits(replace(DENSE, acc_shift=9), constants)
    assert not splits(replace(DENSE, weight_group=16), constants)


def test_not_where_those_over_lower_bytes_would_not_fit():
    assert not splits(replace(DENSE, acc_shift=4), _constants(3, 1000, bias=2**30 - 2**20))


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("shift", [0, 5])
def test_biases_cancel_what_is_added_to_bytes(unsigned, shift):
    rng = np.random.default_rng(0)
    weight, bias = rng.integers(-128, 128, (4, 30)), rng.integers(-(2**20), 2**20, 4).astype(np.int32)
    x = rng.integers(-(2**15), 2**15, 30)
    lower, upper = biases_of_halves(replace(DENSE, acc_shift=shift), bias, weight, unsigned)
    low, high = ((x & 255), (x >> 8) + 128) if unsigned else ((x & 255) - 128, x >> 8)
    total = 256 * (upper.astype(np.int64) + weight @ high) + lower + weight @ low
    half = (1 << shift) >> 1
    assert np.array_equal(total, weight @ x + bias + half)


def test_sums_over_int16_prove_less_than_those_over_bytes():
    constants, bounds = _constants(2, 100, weight=1), DENSE.bounds
    assert proven(bounds, constants).fits_int16
    assert not proven(bounds, (*constants[:3], np.full(2, 1, np.int32)), "int16").fits_int16


@pytest.mark.parametrize(
    ("target", "steps"),
    [
        ("x86-64-vnni", ["split_bytes", "conv2d_dot_product"]),
        ("x86-64-amx", ["split_bytes", "conv2d_dot_product"]),
        ("x86-64-avx2", ["pack_input", "conv2d_dot_product"]),
        ("arm-cortex-a", ["split_bytes", "conv2d_dot_product"]),
        ("arm-cortex-a-i8mm", ["split_bytes", "conv2d_matrix_multiply"]),
        ("riscv64-rvv", ["pack_input", "conv2d_vector"]),
        ("hexagon-v66-npu", ["split_bytes", "conv2d_dot_product"]),
        ("arm-cortex-m55", ["split_bytes", "conv2d_reducing_dot_product"]),
    ],
)
def test_convolutions_have_no_portable_code(target, steps):
    rng = np.random.default_rng(1)
    x = rng.integers(-(2**15), 2**15, (1, 8, 8, 32)).astype(np.int16)
    weight = rng.integers(-20, 20, (32, 3, 3, 32)).astype(np.int8)
    op = Conv2d((1, 1), (1,) * 4, (1, 1), 1, 0, 0, -128, 127, activation_bits=16)
    case = Case(op, (x,), (weight, *_constants(32, 1)[1:]))
    assert [step.name for step in case.steps(load_target(target))] == steps
