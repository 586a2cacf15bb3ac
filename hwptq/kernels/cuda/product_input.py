"""What becomes of the input of a product of floats before the tensor cores load it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hwptq.operators.conv2d import FloatConv2d
from hwptq.quant.float_sums import parts_of_window
from hwptq.tir.builder import TEMPLATE
from hwptq.tir.kernel import Step, TensorType

from .operand import item_bytes
from .pack import pad_channels, row_windows
from .tiling import round_up


def prepared(
    op: Any, x: TensorType, w: np.ndarray, out: TensorType, alignment: int
) -> tuple[list[Step], TensorType, Any, np.ndarray]:
    """(the steps before the product, what they make of x, the operator on that, its weights).

    Where a row of a convolution's window is one part of the sum (parts_of_window), its pixels become
    channels. Else channels are filled with zeros up to a multiple of `alignment` bytes.
    """
    alignment //= item_bytes(x.dtype)
    if isinstance(op, FloatConv2d) and w.shape[2] > 1:
        o, kh, kw, depth = w.shape
        if parts_of_window(w.shape, op.accumulator[0])[0] == kh:
            wide = TensorType((*x.shape[:2], out.shape[2], round_up(kw * depth, alignment)), x.dtype)
            step = Step(row_windows(x, op, wide, kw, {TEMPLATE: "row_windows"}), (0,), wide, "row_windows")
            top, _, bottom, _ = op.padding
            joined = replace(
                op, strides=(op.strides[0], 1), padding=(top, 0, bottom, 0), dilation=(op.dilation[0], 1)
            )
            return [step], wide, joined, w.reshape(o, kh, 1, kw * depth)
    channels = round_up(x.shape[-1], alignment)
    if channels == x.shape[-1]:
        return [], x, op, w
    padded = TensorType((*x.shape[:-1], channels), x.dtype)
    return [padding_step(x, channels, padded)], padded, op, w


def padding_step(x: TensorType, channels: int, out: TensorType) -> Step:
    """Zeros behind every pixel."""
    return Step(pad_channels(x, channels, {TEMPLATE: "pad_channels"}), (0,), out, "pad_channels")
