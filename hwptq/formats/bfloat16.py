"""bfloat16 as a format; its codec is bf16.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import ml_dtypes
import numpy as np

from . import bf16
from .base import Format, Parameter
from .registry import register


@dataclass(frozen=True)
class BFloat16(Format):
    """The upper half of a float32. It has the range of one, so it has no scale."""

    is_float: ClassVar[bool] = True

    @property
    def qmin(self) -> float:
        return -bf16.LARGEST

    @property
    def qmax(self) -> float:
        return bf16.LARGEST

    @property
    def precision(self) -> int:
        return 9

    @property
    def held(self) -> str:
        return self.name

    @property
    def zero_dtype(self) -> type[np.generic]:
        return np.float16

    @property
    def scaled(self) -> bool:
        return False

    def encode(
        self, x: np.ndarray, scale: Parameter = 1.0, zero: Parameter = 0, narrow: bool = False
    ) -> np.ndarray:
        """float32 -> bfloat16 to nearest even, without a scale; what is too large becomes infinity."""
        return bf16.encode(x)

    def decode(self, held: np.ndarray, scale: Parameter = 1.0, zero: Parameter = 0) -> np.ndarray:
        return bf16.decode(held)

    def codes(self, held: np.ndarray) -> np.ndarray:
        return bf16.as_codes(held).astype(np.int64)

    def from_codes(self, index: np.ndarray) -> np.ndarray:
        return np.asarray(index).astype(np.uint16).view(ml_dtypes.bfloat16)

    def bit_patterns(self, held: np.ndarray) -> np.ndarray:
        return self.codes(held)

    def from_bit_patterns(self, patterns: np.ndarray) -> np.ndarray:
        return self.from_codes(patterns)


BFLOAT16 = register(BFloat16("bfloat16", 16, "bf16"))
