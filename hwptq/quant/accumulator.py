"""The constants of a conv or dense operator: int8 weights, int32 bias, and what scales the sum."""

from __future__ import annotations

import numpy as np

from .fixed_point import ACCUMULATOR_LIMIT, quantize_multiplier, shortening


def accumulator_constants(
    weight: np.ndarray, weight_scale: np.ndarray, bias: np.ndarray | None, x_scale: float, x_zero: int,
    out_scale: float | None, weight_bits: int = 8, activation_bits: int = 8,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """(weight int8, bias, multiplier, shift int32 [O]) of the integer operator; without out_scale, where the
    output is float, (weight int8, bias int32, scale float32 [O]).

    weight: int8 [O, …]; weight_scale, bias: real, [O] or [1]. The bias in units of x_scale * weight_scale
    also takes up the zero point of the input. An int4 weight becomes 16 times itself, with a scale 16 times
    finer. Multipliers and scales are those of sums shortened by accumulator_shift. Raises ValueError where an
    accumulator could overflow, or a multiplier is not in [0, 1/2).
    """
    weight, integer_bias, unit = _in_units(weight, weight_scale, bias, x_scale, x_zero, weight_bits)
    most = _most(weight, integer_bias, activation_bits)
    if (activation_bits <= 8 and most > ACCUMULATOR_LIMIT) or np.abs(integer_bias).max() > ACCUMULATOR_LIMIT:
        raise ValueError("its 32-bit accumulator could overflow")
    unit = unit * 2.0 ** shortening(most)
    if out_scale is None:
        return weight, integer_bias.astype(np.int32), unit.astype(np.float32)
    multiplier, shift = quantize_multiplier(unit / np.float64(out_scale))
    return weight, integer_bias.astype(np.int32), multiplier, shift


def accumulator_shift(
    weight: np.ndarray, weight_scale: np.ndarray, bias: np.ndarray | None, x_scale: float, x_zero: int,
    weight_bits: int = 8, activation_bits: int = 8,
) -> int:  # fmt: skip
    """Bits by which such sums are shortened (quant/fixed_point.py); 0 = they fit an int32."""
    weight, integer_bias, _ = _in_units(weight, weight_scale, bias, x_scale, x_zero, weight_bits)
    return shortening(_most(weight, integer_bias, activation_bits))


def _in_units(
    weight: np.ndarray, weight_scale: np.ndarray, bias: np.ndarray | None, x_scale: float, x_zero: int,
    weight_bits: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """(weight int8, bias in units of the accumulator, such a unit float64 [O])."""
    channels, factor = weight.shape[0], 2 ** (8 - weight_bits)
    weight = weight * np.int8(factor)
    unit = np.float64(x_scale) * np.broadcast_to(weight_scale.astype(np.float64) / factor, (channels,))
    real_bias = np.zeros(channels) if bias is None else np.broadcast_to(bias, (channels,))
    rows = weight.reshape(channels, -1).astype(np.int64)
    return weight, np.rint(real_bias / unit) - x_zero * rows.sum(axis=1), unit


def _most(weight: np.ndarray, bias: np.ndarray, activation_bits: int) -> float:
    """What no sum exceeds."""
    rows = np.abs(weight.reshape(len(weight), -1).astype(np.int64)).sum(axis=1)
    reach = 2 ** (max(activation_bits, 8) - 1)
    return float((np.abs(bias) + reach * rows).max(initial=0.0))


def in_output_scale(unit: np.ndarray, out_scale: float) -> np.ndarray:
    """The factor, float32 [O], from an accumulator in units of `unit` to a result that is no integer."""
    return (unit / np.float64(out_scale)).astype(np.float32)
