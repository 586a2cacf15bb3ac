"""Few levels at unequal distances from zero, as {-3, -1, 1, 3}: weights of two bits without a zero.

A code is the place of its level. With a scale for each group such sets keep more of weights that are alike on
both sides of zero than {-2 … 1}.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Format, Parameter
from .registry import register


@dataclass(frozen=True)
class LevelFormat(Format):
    """`levels`, ascending integers of int8, one for each code: real = level * scale."""

    levels: tuple[int, ...] = ()

    is_float: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if len(self.levels) != 2**self.bits or list(self.levels) != sorted(set(self.levels)):
            raise ValueError(f"{self.name}: {2**self.bits} ascending levels are needed, not {self.levels}")

    @property
    def qmin(self) -> int:
        return self.levels[0]

    @property
    def qmax(self) -> int:
        return self.levels[-1]

    @property
    def precision(self) -> int:
        return self.bits

    @property
    def held(self) -> str:
        return "int8"

    @property
    def zero_dtype(self) -> type[np.generic]:
        return np.int8

    @property
    def has_zero(self) -> bool:
        return 0 in self.levels

    @property
    def asymmetric(self) -> bool:
        return False

    def encode(
        self, x: np.ndarray, scale: Parameter = 1.0, zero: Parameter = 0, narrow: bool = False
    ) -> np.ndarray:
        """The nearest level; what lies midway becomes the larger one, NaN the smallest."""
        levels = np.array(self.levels, np.float32)
        ratio = np.asarray(x, np.float32) / np.asarray(scale, np.float32) + np.asarray(zero, np.float32)
        place = np.zeros(ratio.shape, np.uint8)
        for midway in (levels[1:] + levels[:-1]) / np.float32(2):
            place += ratio >= midway
        return self.from_codes(place)

    def decode(self, held: np.ndarray, scale: Parameter = 1.0, zero: Parameter = 0) -> np.ndarray:
        distance = np.asarray(held).astype(np.int32) - np.asarray(zero).astype(np.int32)
        return distance.astype(np.float32) * np.asarray(scale, np.float32)

    def codes(self, held: np.ndarray) -> np.ndarray:
        return np.searchsorted(np.array(self.levels, np.int8), np.asarray(held)).astype(np.int64)

    def from_codes(self, index: np.ndarray) -> np.ndarray:
        return np.array(self.levels, np.int8)[np.asarray(index)]

    def bit_patterns(self, held: np.ndarray) -> np.ndarray:
        return self.codes(held)

    def from_bit_patterns(self, patterns: np.ndarray) -> np.ndarray:
        return self.from_codes(patterns)


LEVELS_1_3 = register(LevelFormat("levels_1_3", 2, levels=(-3, -1, 1, 3)))
LEVELS_1_4 = register(LevelFormat("levels_1_4", 2, levels=(-4, -1, 1, 4)))
