"""Every format: encoding rounds to nearest and saturates, codes and packing lose nothing."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwptq.formats import (
    BFLOAT16,
    E4M3,
    E5M2,
    FLOAT32,
    INT2,
    INT3,
    INT4,
    INT8,
    INT16,
    LEVELS_1_3,
    LEVELS_1_4,
    UINT8,
    Format,
    IntegerFormat,
    LevelFormat,
    format_of,
    formats,
    register,
)  # fmt: skip

INTEGERS = (INT2, INT3, INT4, INT8, INT16, UINT8)
LEVELS = (LEVELS_1_3, LEVELS_1_4)
TABULAR = (*INTEGERS, *LEVELS, E4M3, E5M2, BFLOAT16)  # all whose codes can be listed
FLOATS = (E4M3, E5M2, BFLOAT16)


def values(size: int = 20, limit: float = 1e4) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.float32, size, elements=st.floats(-limit, limit, width=32))


def every_code(f: Format) -> np.ndarray:
    return f.from_codes(np.arange(2**f.bits))


def test_known_by_name() -> None:
    assert {*INTEGERS, *LEVELS, *FLOATS, FLOAT32} <= set(formats())
    assert all(format_of(f.name) is f for f in formats())
    with pytest.raises(ValueError, match=r"no dtype 'int5'; known are .*int2, .*int8"):
        format_of("int5")


def test_a_name_is_given_once() -> None:
    assert register(IntegerFormat("int8", 8)) == INT8
    with pytest.raises(ValueError, match="there is a format 'int8' already"):
        register(IntegerFormat("int8", 7))


@pytest.mark.parametrize("f", TABULAR, ids=lambda f: f.name)
def test_a_code_is_the_nearest_to_its_own_value(f: Format) -> None:
    held, scale = every_code(f), 0.25
    finite = np.isfinite(f.decode(held))
    again = f.encode(f.decode(held, scale), scale)
    assert again.dtype == held.dtype == np.dtype(f.held)
    np.testing.assert_array_equal(f.codes(again)[finite], f.codes(held)[finite])
    np.testing.assert_array_equal(f.codes(held), np.arange(2**f.bits))
    np.testing.assert_array_equal(f.points(scale), f.decode(held, scale))


@pytest.mark.parametrize("f", INTEGERS, ids=lambda f: f.name)
@given(x=values(), scale=st.floats(2**-10, 4, width=32), data=st.data())
def test_integers_are_off_by_half_a_step(f: Format, x: np.ndarray, scale: float, data: st.DataObject) -> None:
    zero = data.draw(st.integers(int(f.qmin), int(f.qmax)))
    low, high = f.decode(np.array([f.qmin, f.qmax], f.held), scale, zero)
    found = f.decode(f.encode(x, scale, zero), scale, zero).astype(np.float64)
    inside = (x > low) & (x < high)
    # besides half a step: x / scale, and the product with the scale, are rounded to float32
    assert np.all(np.abs(found - x)[inside] <= scale / 2 + np.abs(x[inside]) * 2**-22)
    np.testing.assert_array_equal(found[x <= low], np.float64(low))
    np.testing.assert_array_equal(found[x >= high], np.float64(high))


@pytest.mark.parametrize("f", LEVELS, ids=lambda f: f.name)
@given(x=values(limit=10), scale=st.sampled_from([0.25, 1.0, 3.0]))
def test_no_level_is_nearer_than_the_one_chosen(f: LevelFormat, x: np.ndarray, scale: float) -> None:
    found = f.encode(x, scale)
    assert set(found.tolist()) <= set(f.levels)
    ratio = (x / np.float32(scale)).astype(np.float64)
    nearest = np.abs(ratio[:, None] - np.array(f.levels)).min(axis=1)
    np.testing.assert_array_equal(np.abs(ratio - found), nearest)


def test_levels_are_as_many_as_codes_and_ascend() -> None:
    assert not LEVELS_1_3.has_zero
    for levels in ((-1, 1), (-3, 1, -1, 3), (-1, -1, 1, 3)):
        with pytest.raises(ValueError, match="4 ascending levels are needed"):
            LevelFormat("odd", 2, levels=levels)


@pytest.mark.parametrize("f", FLOATS, ids=lambda f: f.name)
@given(x=values(limit=400))
def test_floats_are_off_by_half_a_last_bit(f: Format, x: np.ndarray) -> None:
    error = np.abs(f.decode(f.encode(x)).astype(np.float64) - x)
    smallest = np.sort(np.abs(f.points()[np.isfinite(f.points())]))
    step = smallest[smallest > 0][0]
    assert np.all(error <= np.maximum(np.abs(x) * 2.0 ** (1 - f.precision), step / 2))


@pytest.mark.parametrize(("f", "dtype"), [(E4M3, ml_dtypes.float8_e4m3fn), (E5M2, ml_dtypes.float8_e5m2)])
@given(x=values(limit=400))
def test_floats_round_as_ml_dtypes_do(f: Format, dtype: type, x: np.ndarray) -> None:
    np.testing.assert_array_equal(f.codes(f.encode(x)), x.astype(dtype).view(np.uint8))


@pytest.mark.parametrize("f", TABULAR, ids=lambda f: f.name)
def test_what_is_too_large_saturates(f: Format) -> None:
    ends = f.decode(f.encode(np.float32([-3.4e38, 3.4e38])))
    np.testing.assert_array_equal(ends, np.float32([f.qmin, f.qmax] if f.scaled else [-np.inf, np.inf]))
    assert np.nanmax(np.where(np.isfinite(f.points()), f.points(), np.nan)) == f.qmax


@pytest.mark.parametrize("f", INTEGERS, ids=lambda f: f.name)
def test_narrow_codes_are_symmetric(f: Format) -> None:
    if f.qmin < 0:
        assert f.encode(np.float32([-1e9, 1e9]), narrow=True).tolist() == [-f.qmax, f.qmax]


@pytest.mark.parametrize(
    "f", [*TABULAR, IntegerFormat("int5", 5), IntegerFormat("int6", 6)], ids=lambda f: f.name
)
@given(data=st.data())
def test_packing(f: Format, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 33))
    index = np.array(
        data.draw(st.lists(st.integers(0, 2**f.bits - 1), min_size=count, max_size=count)), np.int64
    )
    held = f.from_codes(index)
    packed = f.pack(held)
    assert packed.dtype == np.uint8
    assert len(packed) == f.packed_bytes(count) == -(-count * f.bits // 8)
    np.testing.assert_array_equal(f.codes(f.unpack(packed, count)), index)


def test_the_first_nibble_is_the_lower() -> None:
    assert INT4.pack(np.int8([1, -2, 3])).tolist() == [0xE1, 0x03]
    assert LEVELS_1_3.pack(np.int8([-3, -1, 1, 3, 1])).tolist() == [0b11100100, 0b10]
    assert INT3.pack(np.int8([1, -1, 0])).tolist() == [0b00111001, 0]


@pytest.mark.parametrize(
    ("a", "b", "sum_of"),
    [(INT8, INT4, "int32"), (INT8, INT8, "int32"), (INT16, INT8, "int64"), (E4M3, E4M3, "float32")],
)
def test_sums(a: Format, b: Format, sum_of: str) -> None:
    assert a.accumulator(b) == b.accumulator(a) == sum_of
