"""Sums of products of floats, as a device has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hwptq.formats import BFLOAT16, E4M3, fp8

from . import bf16_accumulate, fp8_accumulate
from .fp8_accumulate import Accumulator

#: (codes [..., M,K], codes [..., N,K], accumulator) -> their products' sums, by the format of both.
_PRODUCTS: dict[str, Callable[[np.ndarray, np.ndarray, Accumulator], np.ndarray]] = {
    E4M3.name: lambda a, b, model: fp8_accumulate.product(fp8.as_codes(a), fp8.as_codes(b), model),
    BFLOAT16.name: bf16_accumulate.product,
}


@dataclass(frozen=True)
class Accumulators:
    """What a device sums products in: (format of both operands, accumulator)."""

    models: tuple[tuple[str, Accumulator], ...] = (
        (E4M3.name, fp8_accumulate.HOPPER),
        (BFLOAT16.name, bf16_accumulate.IN_ORDER),
    )

    def of(self, dtype: str) -> Accumulator:
        """That of a format. Raises KeyError where the device sums no products of it."""
        return dict(self.models)[dtype]


def product(a: np.ndarray, b: np.ndarray, model: Accumulator) -> np.ndarray:
    """a [..., M,K] and b [..., N,K], of one float format, leading axes equal -> a @ b.T, float32."""
    return _PRODUCTS[str(a.dtype)](a, b, model)


def parts_of_window(weight: tuple[int, ...], step: int) -> tuple[int, int]:
    """(parts, products of each) of a window of weights [O,KH,KW,I]: the accumulator begins each at a step.

    A part is a row of the window where that fits one step, as with the 3 channels of an image; else a tap.
    """
    _, kh, kw, depth = weight
    return (kh, kw * depth) if kw * depth <= step else (kh * kw, depth)
