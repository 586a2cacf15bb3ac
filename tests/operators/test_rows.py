"""Operators on rows with a scale each, by fractions and bounds; test_native.py compares their code."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_rows import nearest_float32

from hwptq.operators.rows import RowQuantize, RowRescale, RowScale
from hwptq.tir.kernel import TensorType
from hwptq.tir.vector_unit import SCALAR


def rows(seed: int, count: int, width: int, size: float) -> np.ndarray:
    """Random rows of very different magnitudes, one of them of zeros."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, count, width)) * size * 10.0 ** rng.uniform(-3, 3, (1, count, 1))
    x[:, count // 2] = 0
    return x.astype(np.float32)


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 40), st.sampled_from([1.0, 1e-37, 1e30]))
def test_codes_are_within_half_a_step_of_the_row(seed, count, width, size):
    x = rows(seed, count, width, size)
    scale = RowScale().reference(x)
    codes = RowQuantize().reference(x, scale)
    assert scale.shape == (1, count, 1)
    assert scale.dtype == np.float32
    assert scale.min() > 0
    assert np.abs(codes.astype(int)).max() <= 127
    kept = np.abs(x) <= 127 * scale
    error = np.abs(codes.astype(np.float64) * scale - x) / scale
    assert error[kept].max(initial=0) <= 0.5 + 1e-4
    reach = np.abs(x).max(axis=-1)
    assert np.all((np.abs(codes).max(axis=-1) == 127)[(reach > 1e-29) & (reach < 1e36)])


def test_rows_of_zeros_and_of_the_largest_numbers_have_codes():
    most = np.finfo(np.float32).max
    x = np.array([[0, 0, 0], [most, -most, 0], [1e-45, 0, -1e-45]], np.float32)
    codes = RowQuantize().reference(x, RowScale().reference(x))
    assert codes.tolist() == [[0, 0, 0], [127, -127, 0], [0, 0, 0]]


@given(st.integers(0, 10**6))
def test_the_rescaling_rounds_once(seed):
    rng = np.random.default_rng(seed)
    t, s, b = (rng.standard_normal(n).astype(np.float32) for n in ((2, 3), (2, 1), 3))
    found = RowRescale(-np.inf, 0.5).reference(t, s, b)
    for i, j in np.ndindex(2, 3):
        exact = Fraction(float(t[i, j])) * Fraction(float(s[i, 0])) + Fraction(float(b[j]))
        assert found[i, j] == min(nearest_float32(exact), np.float32(0.5))


@pytest.mark.parametrize("op", [RowScale(), RowQuantize()])
def test_scalar_code_is_marked(op):
    inputs = [TensorType((1, 2, 4), "float32"), TensorType((1, 2, 1), "float32")][: op.activations]
    out = TensorType((1, 2, 1), "float32") if op.activations == 1 else TensorType((1, 2, 4), "int8")
    assert "hwptq.scalar" in op.primfunc(inputs, out, SCALAR).attrs
