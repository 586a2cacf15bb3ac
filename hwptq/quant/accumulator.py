"""The constants of a conv or dense operator: int8 weights, int32 bias, and what scales the sum."""

from __future__ import annotations

import numpy as np

from .fixed_point import ACCUMULATOR_LIMIT, quantize_multiplier


def accumulator_constants(
    weight: np.ndarray, weight_scale: np.ndarray, bias: np.ndarray | None, x_scale: float, x_zero: int,
    out_scale: float | None, weight_bits: int = 8,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """(weight int8, bias, multiplier, shift int32 [O]) of the integer operator; without out_scale, where the
    output is float, (weight int8, bias int32, scale float32 [O]).

    weight: int8 [O, …]; weight_scale, bias: real, [O] or [1]. The bias in units of x_scale * weight_scale
    also takes up the zero point of the input. An int4 weight becomes 16 times itself, with a scale 16 times
    finer. Raises ValueError where an accumulator could overflow, or a multiplier is not in [0, 1/2).
    """
    channels, factor = weight.shape[0], 2 ** (8 - weight_bits)
    weight = weight * np.int8(factor)
    unit = np.float64(x_scale) * np.broadcast_to(weight_scale.astype(np.float64) / factor, (channels,))
    real_bias = np.zeros(channels) if bias is None else np.broadcast_to(bias, (channels,))
    rows = weight.reshape(channels, -1).astype(np.int64)
    integer_bias = np.rint(real_bias / unit) - x_zero * rows.sum(axis=1)
    if np.any(np.abs(integer_bias) + 128 * np.abs(rows).sum(axis=1) > ACCUMULATOR_LIMIT):
        raise ValueError("its 32-bit accumulator could overflow")
    if out_scale is None:
        return weight, integer_bias.astype(np.int32), unit.astype(np.float32)
    multiplier, shift = quantize_multiplier(unit / np.float64(out_scale))
    return weight, integer_bias.astype(np.int32), multiplier, shift


def in_output_scale(unit: np.ndarray, out_scale: float) -> np.ndarray:
    """The factor, float32 [O], from an accumulator in units of `unit` to a result that is no integer."""
    return (unit / np.float64(out_scale)).astype(np.float32)
