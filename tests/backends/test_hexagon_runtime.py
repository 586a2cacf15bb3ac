"""The arithmetic of the Hexagon runtime, which stands in for a C library, against numpy, bit for bit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from hwptq.backends.backend import backend_of
from hwptq.backends.static_c.runtime import link_program
from hwptq.errors import InputError
from hwptq.targets import load_target

_MAIN = """\
#include <stddef.h>
#include <stdint.h>
long read(int, void *, size_t);
long write(int, const void *, size_t);
float __hexagon_divsf3(float, float);
float nearbyintf(float);
int32_t __hexagon_divsi3(int32_t, int32_t);
int64_t __hexagon_divdi3(int64_t, int64_t);
typedef union { float f[2]; int32_t i[2]; int64_t d; } Pair;
static Pair in[COUNT], out[COUNT];
int main(void) {
    for (long n = 0, got; (got = read(0, (char *)in + n, sizeof in - n)) > 0;) n += got;
    for (long i = 0; i < COUNT; i++) {
        Pair p = in[i];
        RESULT;
    }
    long left = sizeof out, put;
    for (char *p = (char *)out; left && (put = write(1, p, left)) > 0; left -= put) p += put;
    return 0;
}
"""
COUNT = 20_000
SPECIAL = np.array(
    [0, -0.0, 1, np.inf, -np.inf, np.nan, 1e-45, 1e-40, 3.4e38, 2**-126, 2**23, 2**22 + 0.5, 0.5, 1.5, -2.5],
    np.float32,
)


def run(result: str, pairs: np.ndarray, folder: Path) -> np.ndarray:
    """The bytes that `result`, a C statement of p (Pair) and out[i], makes of each of COUNT pairs."""
    target = load_target("hexagon-v66-npu")
    try:
        backend_of(target).check()
    except InputError as error:
        pytest.skip(str(error))
    (folder / "main.c").write_text(_MAIN.replace("RESULT", result).replace("COUNT", str(COUNT)))
    link_program(target, ["main.c"], folder / "program", folder)
    done = subprocess.run(
        [*target.toolchain.run, folder / "program"], input=pairs.tobytes(), capture_output=True, check=True
    )
    return np.frombuffer(done.stdout, np.uint8)


def float_pairs() -> np.ndarray:
    """Pairs of any bits, of usual values, of special ones, and with subnormal quotients."""
    rng = np.random.default_rng(0)
    size = (COUNT // 4, 2)
    bits = rng.integers(0, 2**32, size, np.uint64).astype(np.uint32).view(np.float32)
    subnormal = np.ldexp(rng.integers(2**23, 2**24, size), rng.integers(-170, -120, size)).astype(np.float32)
    subnormal[:, 1] = rng.integers(1, 50, len(subnormal))
    usual = rng.standard_normal(size).astype(np.float32) * 100
    return np.concatenate([bits, usual, rng.choice(SPECIAL, size), subnormal])


def check_floats(found: np.ndarray, expected: np.ndarray) -> None:
    both_nan = np.isnan(found) & np.isnan(expected)
    np.testing.assert_array_equal(found.view(np.uint32)[~both_nan], expected.view(np.uint32)[~both_nan])


def test_division(tmp_path: Path):
    pairs = float_pairs()
    found = run("out[i].f[0] = __hexagon_divsf3(p.f[0], p.f[1])", pairs, tmp_path).view(np.float32)[0::2]
    with np.errstate(all="ignore"):
        check_floats(found, pairs[:, 0] / pairs[:, 1])


def test_rounding(tmp_path: Path):
    pairs = float_pairs()
    found = run("out[i].f[0] = nearbyintf(p.f[0])", pairs, tmp_path).view(np.float32)[0::2]
    with np.errstate(all="ignore"):
        check_floats(found, np.rint(pairs[:, 0]))


def test_integer_division(tmp_path: Path):
    rng = np.random.default_rng(0)
    pairs = (rng.integers(-(2**31), 2**31, (COUNT, 2)) >> rng.integers(0, 31, (COUNT, 2))).astype(np.int32)
    pairs[:, 1] += pairs[:, 1] == 0
    found = run("out[i].i[0] = __hexagon_divsi3(p.i[0], p.i[1])", pairs, tmp_path).view(np.int32)[0::2]
    a, b = pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64)
    np.testing.assert_array_equal(found, np.sign(a) * np.sign(b) * (abs(a) // abs(b)))
