"""Sums of products of floats, as a device has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwptq.formats import bf16, fp8

from . import bf16_accumulate, fp8_accumulate
from .fp8_accumulate import Accumulator


@dataclass(frozen=True)
class Accumulators:
    """What a device sums products in, by the dtype of both operands."""

    float8: Accumulator = fp8_accumulate.HOPPER
    bfloat16: Accumulator = bf16_accumulate.IN_ORDER

    def of(self, dtype: str) -> Accumulator:
        """That of a dtype."""
        return self.bfloat16 if dtype == bf16.DTYPE else self.float8


def product(a: np.ndarray, b: np.ndarray, model: Accumulator) -> np.ndarray:
    """a [..., M,K] and b [..., N,K], both in e4m3 or bfloat16, leading axes equal -> a @ b.T, float32."""
    if a.dtype == bf16.DTYPE:
        return bf16_accumulate.product(a, b, model)
    return fp8_accumulate.product(fp8.as_codes(a), fp8.as_codes(b), model)


def parts_of_window(weight: tuple[int, ...], step: int) -> tuple[int, int]:
    """(parts, products of each) of a window of weights [O,KH,KW,I]: the accumulator begins each at a step.

    A part is a row of the window where that fits one step, as with the 3 channels of an image; else a tap.
    """
    _, kh, kw, depth = weight
    return (kh, kw * depth) if kw * depth <= step else (kh * kw, depth)
