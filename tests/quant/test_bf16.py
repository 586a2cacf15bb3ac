"""Encoding of bfloat16 against ml_dtypes, and its sums of products against rational arithmetic."""

from __future__ import annotations

from fractions import Fraction
from math import trunc

import ml_dtypes
import numpy as np
import pytest

from hwptq.formats import BFLOAT16, bf16, format_of
from hwptq.quant.bf16_accumulate import IN_ORDER, exact_products, product
from hwptq.quant.fma import fma
from hwptq.quant.fp8_accumulate import Accumulator
from hwptq.quant.qparams import QParams, activation_qparams, quantize_weight, weight_scales

HOPPER, ADA = Accumulator(16, 25, 0), Accumulator(8, 24, 0)


def test_codes_and_values() -> None:
    assert float(ml_dtypes.finfo("bfloat16").max) == bf16.LARGEST
    exact = np.arange(1 << 16).astype(np.uint16).view(ml_dtypes.bfloat16)
    assert np.array_equal(bf16.VALUES, exact.astype(np.float32), equal_nan=True)
    finite = ~np.isnan(bf16.VALUES)
    assert np.array_equal(bf16.as_codes(bf16.encode(bf16.VALUES))[finite], np.arange(1 << 16)[finite])
    assert set(bf16.as_codes(bf16.encode(bf16.VALUES))[~finite].tolist()) == {0x7FFF}


def test_encoding_rounds_to_nearest_even() -> None:
    bits = np.random.default_rng(0).integers(0, 1 << 32, 1 << 18, dtype=np.uint32)
    ties = (bits & np.uint32(0xFFFF0000)) | np.uint32(0x8000)
    for x in (bits.view(np.float32), ties.view(np.float32)):
        x = x[~np.isnan(x)]
        expected = x.astype(ml_dtypes.bfloat16)
        assert np.array_equal(bf16.as_codes(bf16.encode(x)), bf16.as_codes(expected))
    tie = np.array([1 + 2**-8, 1 + 3 * 2**-8, np.finfo(np.float32).max], np.float32)
    assert bf16.decode(bf16.encode(tie)).tolist() == [1, 1 + 2**-6, np.inf]


def test_tensors_have_no_scale() -> None:
    assert activation_qparams(-3, 1e20, 0.5, BFLOAT16) == QParams(1.0, 0, BFLOAT16)
    w = np.random.default_rng(1).standard_normal((4, 3, 2, 2)).astype(np.float32)
    scale = weight_scales(w, 0, None, BFLOAT16)
    assert scale.tolist() == [1, 1, 1, 1]
    assert np.array_equal(bf16.decode(quantize_weight(w, scale, 0, BFLOAT16)), bf16.decode(bf16.encode(w)))
    assert [format_of(d).precision for d in ("float8_e4m3fn", "int8", "bfloat16")] == [5, 8, 9]


def operands(kind: str, rows: int, depth: int, seed: int) -> np.ndarray:
    """bfloat16; "wide": of exponents that differ by up to 40, "tiny": whose products leave float32 below."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, depth)).astype(np.float32)
    if kind == "wide":
        x = np.ldexp(x, rng.integers(-20, 20, x.shape))
    elif kind == "tiny":
        x = np.ldexp(x, rng.integers(-90, -50, x.shape))
    return bf16.encode(np.abs(x) if kind == "positive" else x)


def exponent(x: Fraction) -> int:
    e = x.numerator.bit_length() - x.denominator.bit_length()
    return e if abs(x) >= Fraction(2) ** e else e - 1


def cut(x: Fraction, unit: Fraction) -> Fraction:
    return trunc(x / unit) * unit


def dot(a: np.ndarray, b: np.ndarray, model: Accumulator) -> float:
    """The rules of bf16_accumulate's docstring, word by word."""
    acc = Fraction(0)
    for start in range(0, len(a), model.step):
        pairs = [
            (Fraction(float(x)), Fraction(float(y)))
            for x, y in zip(a[start : start + model.step], b[start : start + model.step], strict=True)
            if x and y
        ]
        ends = [max(exponent(x), -126) + max(exponent(y), -126) for x, y in pairs]
        ends += [max(exponent(acc), -126)] if acc else []
        if ends:
            unit = Fraction(2) ** (max(ends) - model.fraction_bits)
            acc = cut(acc, unit) + sum(cut(x * y, unit) for x, y in pairs)
        if acc:
            acc = cut(acc, Fraction(2) ** max(exponent(acc) - 23, -149))
    return float(acc)


@pytest.mark.parametrize("model", [HOPPER, ADA])
@pytest.mark.parametrize("kind", ["normal", "positive", "wide", "tiny"])
@pytest.mark.parametrize("depth", [1, 27, 64, 144])
def test_steps_equal_rational_arithmetic(model: Accumulator, kind: str, depth: int) -> None:
    a, b = operands(kind, 3, depth, depth), operands(kind, 4, depth, depth + 1)
    expected = [[dot(bf16.decode(x), bf16.decode(y), model) for y in b] for x in a]
    assert np.array_equal(product(a, b, model), np.array(expected, np.float32))


@pytest.mark.parametrize("kind", ["normal", "positive", "wide", "tiny"])
def test_in_order_is_one_fma_after_the_other(kind: str) -> None:
    a, b = operands(kind, 70, 90, 1), operands(kind, 1100, 90, 2)
    acc = np.zeros((70, 1100), np.float32)
    for k in range(90):
        acc = fma(bf16.decode(a)[:, k, None], bf16.decode(b)[None, :, k], acc)
    assert np.array_equal(product(a, b, IN_ORDER), acc)
    assert exact_products(bf16.decode(a), bf16.decode(b)) == (kind != "tiny")


@pytest.mark.parametrize("model", [HOPPER, IN_ORDER])
def test_what_is_not_finite(model: Accumulator) -> None:
    """Infinity stays, infinity less infinity and infinity times zero are NaN; other sums see none of it."""
    a, b = operands("normal", 5, 40, 3), operands("normal", 6, 40, 4)
    clean = product(a, b, model)
    a[1, 3], a[2, 5], b[2, 40 - 1] = np.inf, np.nan, np.inf
    b[3, 3], a[3, 39] = 0, -np.inf
    found = product(a, b, model)
    with np.errstate(invalid="ignore"):
        real = bf16.decode(a).astype(np.float64) @ bf16.decode(b).astype(np.float64).T
    assert np.array_equal(np.isnan(found), np.isnan(real))
    assert np.array_equal(found[np.isinf(real)], real[np.isinf(real)])
    finite = np.isfinite(real)
    assert np.array_equal(found[finite & (np.arange(6) != 3)], clean[finite & (np.arange(6) != 3)])
    large = np.full((1, 32), bf16.LARGEST, np.float32)
    assert product(bf16.encode(large), bf16.encode(large), model).tolist() == [[np.inf]]


def test_leading_axes() -> None:
    a, b = operands("normal", 6, 20, 0).reshape(2, 3, 20), operands("normal", 8, 20, 1).reshape(2, 4, 20)
    found = product(a, b, HOPPER)
    assert all(np.array_equal(found[i], product(a[i], b[i], HOPPER)) for i in range(2))
