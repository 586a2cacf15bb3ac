"""float32: what is not quantized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Format, Parameter
from .registry import register


@dataclass(frozen=True)
class Float32(Format):
    """IEEE 754's single precision; encoding and decoding change nothing."""

    is_float: ClassVar[bool] = True

    @property
    def qmin(self) -> float:
        return -self.qmax

    @property
    def qmax(self) -> float:
        return float(np.finfo(np.float32).max)

    @property
    def precision(self) -> int:
        return 25

    @property
    def held(self) -> str:
        return self.name

    @property
    def zero_dtype(self) -> type[np.generic]:
        return np.float32

    @property
    def quantized(self) -> bool:
        return False

    @property
    def scaled(self) -> bool:
        return False

    def encode(
        self, x: np.ndarray, scale: Parameter = 1.0, zero: Parameter = 0, narrow: bool = False
    ) -> np.ndarray:
        return np.asarray(x, np.float32)

    def decode(self, held: np.ndarray, scale: Parameter = 1.0, zero: Parameter = 0) -> np.ndarray:
        return np.asarray(held, np.float32)

    def codes(self, held: np.ndarray) -> np.ndarray:
        return np.asarray(held, np.float32, order="C").view(np.uint32).astype(np.int64)

    def from_codes(self, index: np.ndarray) -> np.ndarray:
        return np.asarray(index).astype(np.uint32).view(np.float32)

    def bit_patterns(self, held: np.ndarray) -> np.ndarray:
        return self.codes(held)

    def from_bit_patterns(self, patterns: np.ndarray) -> np.ndarray:
        return self.from_codes(patterns)


FLOAT32 = register(Float32("float32", 32))
