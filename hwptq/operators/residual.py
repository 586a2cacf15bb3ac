"""What a layer in floats makes of its sums: scale, bias, and another tensor that is added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hwptq.quant.float_values import value
from hwptq.quant.fma import fma


def with_residual(
    op: Any, acc: np.ndarray, scale: np.ndarray, bias: np.ndarray, residual: Sequence[np.ndarray]
) -> np.ndarray:  # fmt: skip
    """float32 results of FloatConv2d and FloatDense from their sums, which have the shape of the output."""
    y = fma(acc, scale, bias)
    for r in residual:
        y = fma(value(r, op.residual_zero_point), np.asarray(op.residual, np.float32), y)
    return y
