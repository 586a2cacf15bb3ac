"""The sum of two integer tensors of different scales in fixed point: what an integer Add computes."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from .fixed_point import requantize


class ScaledSum(Protocol):
    """acc = (a - a_zero_point) * a_factor + (b - b_zero_point) * b_factor, then requantize; hashable."""

    @property
    def a_zero_point(self) -> int: ...
    @property
    def b_zero_point(self) -> int: ...
    @property
    def a_factor(self) -> int: ...
    @property
    def b_factor(self) -> int: ...
    @property
    def multiplier(self) -> int: ...
    @property
    def shift(self) -> int: ...
    @property
    def out_zero_point(self) -> int: ...
    @property
    def lo(self) -> int: ...
    @property
    def hi(self) -> int: ...
    @property
    def out(self) -> str: ...
    @property
    def rounding(self) -> str: ...


def scaled_sum(op: ScaledSum, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The sum of a and b, which broadcast."""
    acc = (a.astype(np.int64) - op.a_zero_point) * op.a_factor
    acc = acc + (b.astype(np.int64) - op.b_zero_point) * op.b_factor
    return requantize(acc, op.multiplier, op.shift, op.out_zero_point, op.lo, op.hi, op.out, op.rounding)
