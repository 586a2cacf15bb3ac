"""The constants of layers: what their weights, biases and scales are as an operator takes them."""

from __future__ import annotations

import numpy as np

from hwptq.ir.composite import Composite
from hwptq.ir.dataflow import constant
from hwptq.quant.accumulator import accumulator_constants, accumulator_shift, in_output_scale
from hwptq.quant.fixed_point import quantize_multiplier

from .operand import NotInteger, Operand
from .output import Output


def integer_constants(
    unit: Composite, x: Operand, w: Operand, out: Output
) -> tuple[tuple[np.ndarray, ...], int]:  # fmt: skip
    """(Constants of a conv or dense in integers, the shift of its sums): weight, bias, multiplier, shift, or
    where the result is a float weight, bias and scale.
    """
    _check(unit, x, w)
    if out.in_floats and not (out.format.is_float and out.format.quantized):
        raise NotInteger("its result is no short float")
    scale = None if out.real or out.in_floats else out.scale
    bits = 8 if out.weight_group or out.in_floats else out.weight_bits, x.bits
    given = _rows(w), w.scale, unit.bias, float(x.scale), x.zero
    check_bias(unit.bias, float(x.scale), w.scale, out.bias_bits)
    try:
        found, by = accumulator_constants(*given, scale, *bits), accumulator_shift(*given, *bits)
    except ValueError as error:
        raise NotInteger(str(error)) from error
    if not out.in_floats:
        return found, by
    weight, bias, factor = found
    return (weight, bias, in_output_scale(factor, out.scale)), by


def check_bias(bias: np.ndarray | None, x_scale: float, weight_scale: np.ndarray, bits: int) -> None:
    """Raise NotInteger for a bias that has more bits, in steps of the products, than the device."""
    if bias is None:
        return
    steps = np.abs(np.rint(bias / (np.float64(x_scale) * weight_scale.astype(np.float64))))
    if steps.max(initial=0.0) > 2.0 ** (bits - 1) - 1:
        needed = int(np.log2(steps.max())) + 2
        raise NotInteger(f"its bias takes {needed} bits, the device has {bits}")


def activation_bits(x: Operand, out: Output) -> int:
    """Those that the input of a layer takes: fewer than its dtype has where the layer was assigned them."""
    return min(x.bits, out.activation_bits) if x.bits <= 8 else x.bits


def float_constants(
    unit: Composite, x: Operand, w: Operand, channels: int, out: Output
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """(weight, scale, bias) of a layer in floats; scale and bias, float32, lead to the output's scale."""
    _check(unit, x, w)
    if x.dtype != w.dtype:
        raise NotInteger("input and weight differ in their dtype")
    scale = np.float64(x.scale) * np.broadcast_to(w.scale.astype(np.float64), (channels,)) / out.scale
    bias = np.zeros(channels) if unit.bias is None else np.broadcast_to(unit.bias, (channels,)) / out.scale
    return _rows(w), scale.astype(np.float32), bias.astype(np.float32)


def residual_of(out: Output) -> tuple[float, int]:
    """(factor, zero point) of what a layer in floats adds; the factor is 0 where it adds nothing."""
    return (0.0, 0) if out.residual is None else (factor_to(out.residual, out), out.residual.zero)


def factor_to(x: Operand, out: Output) -> float:
    """From an operand's scale to the output's, a float32."""
    return float(np.float32(float(x.scale) / out.scale))


def multiplier_of(real: float) -> tuple[int, int]:
    """(multiplier, shift) of a real factor. Raises NotInteger for one that has none."""
    multiplier, shift = multipliers_of(np.asarray(real, np.float64))
    return int(multiplier), int(shift)


def multipliers_of(real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(multipliers, shifts) of real factors. Raises NotInteger where one has none."""
    try:
        return quantize_multiplier(real)
    except ValueError as error:
        raise NotInteger(str(error)) from error


def _check(unit: Composite, x: Operand, w: Operand) -> None:
    if not w.is_constant:
        raise NotInteger("the weight is not a constant")
    if w.zero:
        raise NotInteger("a weight with a zero point")
    if x.is_constant:
        raise NotInteger("its input is a constant")
    if constant(unit.args[1]) is not None:
        raise NotInteger("its weight is not quantized")


def _rows(w: Operand) -> np.ndarray:
    """A weight with its output channels first."""
    return w.tensor.transpose(0, 2, 3, 1) if w.tensor.ndim == 4 else np.ascontiguousarray(w.tensor.T)
