"""The mathematics of programs without a C library, built for this machine, against numpy, bit for bit."""

from __future__ import annotations

import ctypes
import shutil

import numpy as np
import pytest

from hwptq.backends.static_c.c_source import data_file
from hwptq.backends.toolchain import call_tool
from hwptq.quant.fma import fma

SPECIAL = np.array(
    [0, -0.0, 1, np.inf, -np.inf, 1e-45, 1e-40, 3.4e38, 2**-126, 2**23, 2**22 + 0.5, 0.5, 1.5, -2.5, 0.25],
    np.float32,
)
UNARY = {
    "sqrtf": np.sqrt,
    "nearbyintf": np.rint,
    "roundevenf": np.rint,
    "floorf": np.floor,
    "ceilf": np.ceil,
    "truncf": np.trunc,
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if shutil.which("gcc") is None:
        pytest.skip("gcc not found on PATH")
    folder = tmp_path_factory.mktemp("freestanding")
    (folder / "own.c").write_text(data_file("freestanding.c") + data_file("fused.c"))
    flags = ["-O2", "-ffreestanding", "-fno-builtin", "-ffp-contract=off", "-shared", "-fPIC", "-nostdlib"]
    call_tool(["gcc", *flags, "own.c", "-o", "own.so"], folder)
    return ctypes.CDLL(str(folder / "own.so"))


def values() -> np.ndarray:
    random = np.random.default_rng(0).integers(0, 2**32, 5000, np.uint32).view(np.float32)
    near = np.random.default_rng(1).uniform(-1000, 1000, 5000).astype(np.float32)
    found = np.concatenate([SPECIAL, random, near])
    return found[~np.isnan(found)]


@pytest.mark.parametrize("name", UNARY)
def test_a_function_of_one_number(name: str, library: ctypes.CDLL) -> None:
    function = getattr(library, name)
    function.argtypes, function.restype = [ctypes.c_float], ctypes.c_float
    given = values() if name != "sqrtf" else np.abs(values())
    found = np.array([function(float(x)) for x in given], np.float32)
    np.testing.assert_array_equal(found, UNARY[name](given))


def test_the_larger_and_the_smaller(library: ctypes.CDLL) -> None:
    for name, expected in (("fmaxf", np.fmax), ("fminf", np.fmin)):
        function = getattr(library, name)
        function.argtypes, function.restype = [ctypes.c_float] * 2, ctypes.c_float
        pairs = np.array([(1, 2), (2, 1), (np.nan, 1), (1, np.nan), (-np.inf, 3)], np.float32)
        found = [function(float(a), float(b)) for a, b in pairs]
        np.testing.assert_array_equal(np.array(found, np.float32), expected(*pairs.T))


def test_a_fused_product_and_sum(library: ctypes.CDLL) -> None:
    """Also where the sum cancels, is subnormal, or would be rounded twice."""
    library.fmaf.argtypes, library.fmaf.restype = [ctypes.c_float] * 3, ctypes.c_float
    random = np.random.default_rng(2)
    a, b = (random.standard_normal(6000).astype(np.float32) for _ in range(2))
    c = (random.standard_normal(6000) * 10.0 ** random.integers(-10, 10, 6000)).astype(np.float32)
    c[::3] = -(a * b)[::3]
    a[::5] *= np.float32(2.0**-100)
    b[::5] *= np.float32(2.0**-40)
    c[::5] = 0
    found = [library.fmaf(float(x), float(y), float(z)) for x, y, z in zip(a, b, c, strict=True)]
    np.testing.assert_array_equal(np.array(found, np.float32), fma(a, b, c))


def test_memory_moves_in_both_directions(library: ctypes.CDLL) -> None:
    for shift in (-3, 0, 5, 8):
        data = np.arange(64, dtype=np.uint8)
        expected = data.copy()
        expected[16 + shift : 40 + shift] = data[16:40]
        library.memmove.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
        library.memmove(data.ctypes.data + 16 + shift, data.ctypes.data + 16, 24)
        np.testing.assert_array_equal(data, expected)
