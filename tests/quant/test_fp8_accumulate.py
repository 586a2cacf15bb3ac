"""The model of Hopper's accumulator against the same rules in exact rational arithmetic."""

from __future__ import annotations

import time
from fractions import Fraction
from math import trunc

import numpy as np
import pytest

from hwptq.formats import fp8
from hwptq.quant.fp8_accumulate import Accumulator, product

FAST, PROMOTED = Accumulator(promote=0), Accumulator()
FINITE = np.array([c for c in range(256) if c & 0x7F != fp8.NAN], np.uint8)


def exponent(x: Fraction) -> int:
    """floor(log2 |x|)."""
    e = x.numerator.bit_length() - x.denominator.bit_length()
    return e if abs(x) >= Fraction(2) ** e else e - 1


def cut(x: Fraction, unit: Fraction) -> Fraction:
    return trunc(x / unit) * unit


def dot(a: np.ndarray, b: np.ndarray, model: Accumulator) -> np.float32:
    """The rules of fp8_accumulate's docstring, word by word."""
    total, acc = np.float32(0), Fraction(0)
    for start in range(0, len(a), model.step):
        pairs = [
            (Fraction(float(x)), Fraction(float(y)))
            for x, y in zip(a[start : start + model.step], b[start : start + model.step], strict=True)
        ]
        pairs = [(x, y) for x, y in pairs if x and y]
        exponents = [max(exponent(x), -6) + max(exponent(y), -6) for x, y in pairs]
        exponents += [exponent(acc)] if acc else []
        if exponents:
            unit = Fraction(2) ** (max(exponents) - model.fraction_bits)
            acc = cut(acc, unit) + sum(cut(x * y, unit) for x, y in pairs)
        if acc:
            acc = cut(acc, Fraction(2) ** (exponent(acc) - model.fraction_bits))
        if model.promote and (start + model.step) % model.promote == 0:
            total, acc = np.float32(total + np.float32(float(acc))), Fraction(0)
    return np.float32(total + np.float32(float(acc)))


def operands(kind: str, rows: int, depth: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "codes":
        return rng.choice(FINITE, (rows, depth))
    x = rng.standard_normal((rows, depth)).astype(np.float32)
    scale = {"normal": 1, "positive": 1, "subnormal": 0.004}[kind]
    return fp8.encode(np.abs(x) if kind == "positive" else x * np.float32(scale))


@pytest.mark.parametrize("model", [FAST, PROMOTED, Accumulator(16, 10, 64)])
@pytest.mark.parametrize("kind", ["codes", "normal", "positive", "subnormal"])
@pytest.mark.parametrize("depth", [1, 27, 32, 128, 144, 300])
def test_equals_rational_arithmetic(model: Accumulator, kind: str, depth: int) -> None:
    a, b = operands(kind, 3, depth, depth), operands(kind, 4, depth, depth + 1)
    expected = [[dot(fp8.decode(x), fp8.decode(y), model) for y in b] for x in a]
    assert np.array_equal(product(a, b, model), np.array(expected, np.float32))


def test_blocks_and_leading_axes_do_not_matter() -> None:
    a, b = operands("normal", 600, 40, 0), operands("normal", 2500, 40, 1)
    whole = product(a, b, PROMOTED)
    assert np.array_equal(whole[590:, 2490:], product(a[590:], b[2490:], PROMOTED))
    stacked = product(np.stack([a, a[::-1]]), np.stack([b, b]), PROMOTED)
    assert np.array_equal(stacked, np.stack([whole, whole[::-1]]))


def test_zeros_at_the_end_change_nothing() -> None:
    a, b = operands("codes", 5, 45, 3), operands("codes", 6, 45, 4)
    grown = [np.pad(x, ((0, 0), (0, 90))) for x in (a, b)]
    assert np.array_equal(product(a, b, FAST), product(*grown, FAST))


def test_promotion_keeps_what_the_short_accumulator_loses() -> None:
    """The hazard that promotion is for: on ReLU-like data the fast sum at K = 4096 is off by percents."""
    a, b = operands("positive", 16, 4096, 5), operands("positive", 16, 4096, 6)
    exact = fp8.decode(a).astype(np.float64) @ fp8.decode(b).astype(np.float64).T
    errors = [np.abs(product(a, b, m) / exact - 1).mean() for m in (FAST, PROMOTED)]
    assert errors[0] > 1e-2
    assert errors[1] < 1e-3


def test_nan_reaches_its_row_and_its_column_only() -> None:
    a, b = operands("normal", 4, 64, 7), operands("normal", 5, 64, 8)
    clean = product(a, b, PROMOTED)
    a[1, 3], b[2, 40] = 0xFF, fp8.NAN
    a[0, 40] = 0  # NaN * 0 is NaN
    found = product(a, b, PROMOTED)
    hit = np.zeros((4, 5), bool)
    hit[1], hit[:, 2] = True, True
    assert np.isnan(found[hit]).all()
    other = ~hit
    other[0] = False
    assert np.array_equal(found[other], clean[other])


def test_a_resnet20_image_takes_less_than_a_second() -> None:
    """Its layers are 19 products such as these, 41 million multiply-accumulates in all."""
    layers = [(1024, 16, 144)] * 7 + [(256, 32, 288)] * 6 + [(64, 64, 576)] * 6
    started = time.process_time()
    for m, n, k in layers:
        product(operands("normal", m, k, 0), operands("normal", n, k, 1), PROMOTED)
    assert time.process_time() - started < 1
