"""What gpu_operators.py runs: an operator with its tensors, and random values for these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gpu_cases import BFLOAT16, E4M3

from hwptq.formats import bf16, fp8

MODEL = (32, 13, 128)
#: N, H, W, C, O, kernel, strides, padding (top, left, bottom, right), dilation.
CONVS = (
    (2, 9, 7, 16, 16, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    (1, 12, 12, 3, 48, (3, 3), (2, 2), (0, 1, 2, 0), (1, 1)),
    (3, 8, 10, 64, 10, (1, 3), (1, 2), (0, 2, 0, 1), (2, 2)),
    (1, 14, 14, 100, 80, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    (2, 15, 15, 144, 192, (5, 5), (2, 2), (2, 2, 2, 2), (1, 1)),
)


@dataclass(frozen=True)
class Case:
    """An operator with the values of its activations and constants."""

    name: str
    op: Any
    activations: tuple[np.ndarray, ...]
    constants: tuple[np.ndarray, ...] = ()


class Values:
    """Random tensors of every dtype."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def int8(self, *shape: int) -> np.ndarray:
        return self.rng.integers(-128, 128, shape).astype(np.int8)

    def e4m3(self, *shape: int) -> np.ndarray:
        return fp8.as_float8(fp8.encode(self.rng.standard_normal(shape, np.float32)))

    def bf16(self, *shape: int, spread: int = 0) -> np.ndarray:
        """Normal numbers times powers of two of `spread` exponents around 0."""
        x = self.rng.standard_normal(shape, np.float32)
        return bf16.encode(np.ldexp(x, self.rng.integers(-spread // 2, spread // 2 + 1, shape)))

    def of(self, dtype: str, *shape: int) -> np.ndarray:
        make = {"int8": self.int8, E4M3: self.e4m3, BFLOAT16: self.bf16}[dtype]
        return make(*shape)

    def reals(self, low: float, high: float, count: int) -> np.ndarray:
        return self.rng.uniform(low, high, count).astype(np.float32)

    def fixed(self, count: int, depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bias, multiplier and shift of sums of `depth` products."""
        shift = int(np.log2(5000 * np.sqrt(depth) / 64))
        bias = self.rng.integers(-5000, 5001, count).astype(np.int32)
        return (
            bias,
            self.rng.integers(2**30, 2**31, count).astype(np.int32),
            self.rng.integers(shift - 1, shift + 3, count).astype(np.int32),
        )
