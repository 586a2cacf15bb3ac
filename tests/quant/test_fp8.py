"""e4m3fn in integer arithmetic, against ml_dtypes and against the definition of the format."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hwptq.formats import fp8

CODES = np.arange(256, dtype=np.uint8)
ORDERED = np.arange(0x7F, dtype=np.uint8)  # the codes of 0 … 448, in the order of their values


def by_ml_dtypes(x: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        codes = np.clip(x, -448, 448).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    return np.where(np.isnan(x), np.uint8(fp8.NAN), codes)


def test_all_codes_decode() -> None:
    expected = CODES.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    found = fp8.decode(CODES)
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.array_equal(np.signbit(found[:128]), np.zeros(128))
    assert np.array_equal(np.signbit(found[128:-1]), np.ones(127))


def test_all_codes_round_trip() -> None:
    expected = np.where((CODES & 0x7F) == fp8.NAN, fp8.NAN, CODES)
    assert np.array_equal(fp8.encode(fp8.decode(CODES)), expected)


def test_every_tie_goes_to_even_and_its_neighbours_to_the_nearest() -> None:
    values = fp8.decode(ORDERED)
    middle = (values[:-1] + values[1:]) / 2
    even = np.where(ORDERED[:-1] & 1, ORDERED[1:], ORDERED[:-1])
    assert np.array_equal(fp8.encode(middle), even)
    assert np.array_equal(fp8.encode(np.nextafter(middle, np.float32(0))), ORDERED[:-1])
    assert np.array_equal(fp8.encode(np.nextafter(middle, np.float32(1e9))), ORDERED[1:])
    assert np.array_equal(fp8.encode(-middle), even | 0x80)


def test_every_upper_half_of_a_float32() -> None:
    """Sign, exponent and 7 fraction bits, with the lower bits 0, 1 and all ones."""
    upper = np.arange(2**16, dtype=np.uint32) << 16
    for lower in (0, 1, 0x7FFF, 0x8000, 0xFFFF):
        x = (upper | np.uint32(lower)).view(np.float32)
        assert np.array_equal(fp8.encode(x), by_ml_dtypes(x))


def test_what_is_no_number() -> None:
    inf, nan = np.float32(np.inf), np.float32(np.nan)
    x = np.array([inf, -inf, nan, -nan, 449, 1e30, -1e30, 0.0, -0.0, 1e-30, -1e-30], np.float32)
    expected = [0x7E, 0xFE, 0x7F, 0x7F, 0x7E, 0x7E, 0xFE, 0, 0x80, 0, 0x80]
    assert fp8.encode(x).tolist() == expected


@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
def test_encode_rounds_as_ml_dtypes_does(values: list[float]) -> None:
    x = np.array(values, np.float32)
    assert np.array_equal(fp8.encode(x), by_ml_dtypes(x))


@given(st.floats(-448, 448, width=32), st.floats(-448, 448, width=32))
def test_encode_is_monotone(a: float, b: float) -> None:
    low, high = fp8.decode(fp8.encode(np.array(sorted((a, b)), np.float32)))
    assert low <= high


def test_float8_arrays_and_codes() -> None:
    assert np.array_equal(fp8.as_codes(fp8.as_float8(CODES)), CODES)
    assert fp8.as_float8(CODES).dtype == fp8.DTYPE
