"""The floats of 8 bits: e4m3 without infinities, and e5m2.

Codec of e4m3: fp8.py. e5m2 has one sign bit, five exponent bits of bias 15, two fraction bits, infinities and
NaN as IEEE 754 has them: it is the upper half of a float16. What is too large saturates, so no finite value
becomes infinite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import ml_dtypes
import numpy as np

from . import fp8
from .base import Format, Parameter
from .registry import register


@dataclass(frozen=True)
class _Float8(Format):
    """A float of a byte: codes are its bits."""

    is_float: ClassVar[bool] = True

    @property
    def qmin(self) -> float:
        return -self.qmax

    @property
    def held(self) -> str:
        return self.name

    @property
    def zero_dtype(self) -> type[np.generic]:
        return np.float16

    def codes(self, held: np.ndarray) -> np.ndarray:
        return np.asarray(held, order="C").view(np.uint8).astype(np.int64)

    def from_codes(self, index: np.ndarray) -> np.ndarray:
        return np.asarray(index).astype(np.uint8).view(np.dtype(self.held))

    def bit_patterns(self, held: np.ndarray) -> np.ndarray:
        return self.codes(held)

    def from_bit_patterns(self, patterns: np.ndarray) -> np.ndarray:
        return self.from_codes(patterns)


@dataclass(frozen=True)
class Float8E4M3(_Float8):
    """float8 e4m3fn: 448 is the largest value."""

    @property
    def qmax(self) -> float:
        return fp8.LARGEST

    @property
    def precision(self) -> int:
        return 5

    def encode(
        self, x: np.ndarray, scale: Parameter = 1.0, zero: Parameter = 0, narrow: bool = False
    ) -> np.ndarray:
        return fp8.as_float8(fp8.encode(np.asarray(x, np.float32) / np.asarray(scale, np.float32)))

    def decode(self, held: np.ndarray, scale: Parameter = 1.0, zero: Parameter = 0) -> np.ndarray:
        return fp8.decode(fp8.as_codes(held)) * np.asarray(scale, np.float32)


@dataclass(frozen=True)
class Float8E5M2(_Float8):
    """float8 e5m2: 57344 is the largest value."""

    @property
    def qmax(self) -> float:
        return 57344.0

    @property
    def precision(self) -> int:
        return 4

    def encode(
        self, x: np.ndarray, scale: Parameter = 1.0, zero: Parameter = 0, narrow: bool = False
    ) -> np.ndarray:
        """As Format says; infinity saturates too, NaN becomes 0x7F whatever its sign."""
        y = np.asarray(x, np.float32) / np.asarray(scale, np.float32)
        nan = np.isnan(y)
        y = np.clip(np.where(nan, np.float32(0), y), -self.qmax, self.qmax)
        # in multiples of 2^-16, or of a quarter of the power of two below y
        unit = np.ldexp(1.0, np.maximum(np.frexp(y)[1] - 1, -14) - 2)
        bits = ((np.rint(y / unit) * unit).astype(np.float16).view(np.uint16) >> 8).astype(np.uint8)
        return np.where(nan, np.uint8(0x7F), bits).view(ml_dtypes.float8_e5m2)

    def decode(self, held: np.ndarray, scale: Parameter = 1.0, zero: Parameter = 0) -> np.ndarray:
        return _E5M2_VALUES[self.codes(held)] * np.asarray(scale, np.float32)


def _e5m2_values() -> np.ndarray:
    half = (np.arange(256, dtype=np.uint16) << 8).view(np.float16)
    with np.errstate(invalid="ignore"):  # of a NaN of float16 that signals
        return np.where(np.isnan(half), np.float32(np.nan), half.astype(np.float32))


#: float32 [256]: the value of each code of e5m2.
_E5M2_VALUES = _e5m2_values()

E4M3 = register(Float8E4M3("float8_e4m3fn", 8, "fp8"))
E5M2 = register(Float8E5M2("float8_e5m2", 8, "e5m2"))
