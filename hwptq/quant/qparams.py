"""Scale and zero_point from a range of real values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class QParams:
    """Per-tensor parameters of an int8 activation: real = (q - zero_point) * scale."""

    scale: float  # exactly a float32
    zero_point: int


def activation_qparams(low: float, high: float, floor: float = 0.0) -> QParams:
    """Asymmetric int8 parameters that cover [low, high] and represent 0 exactly.

    `floor`: the smallest scale to give. (0, 2.55) -> scale 0.01, zero_point -128.
    Jacob et al. 2018, section 3.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max((high - low) / 255.0, floor, 1e-12))
    zero_point = int(np.clip(np.rint(-128 - low / float(scale)), -128, 127))
    return QParams(float(scale), zero_point)


def weight_scales(weight: np.ndarray, axis: int | None, bias_limit: np.ndarray | None = None) -> np.ndarray:
    """Symmetric narrow-range int8 scales of `weight`: float32 [channels] along `axis`, or [1] for None.

    `bias_limit`: per channel, the smallest scale with which the channel's bias still fits its accumulator.
    """
    if axis is None:
        reach = np.abs(weight).max(keepdims=True).reshape(1)
    else:
        reach = np.abs(np.moveaxis(weight, axis, 0)).reshape(weight.shape[axis], -1).max(axis=1)
    scale = np.where(reach > 0, reach / 127.0, 1.0)
    if bias_limit is not None:
        scale = np.maximum(scale, bias_limit if axis is not None else bias_limit.max())
    return np.maximum(scale, 1e-12).astype(np.float32)


def quantize_weight(weight: np.ndarray, scale: np.ndarray, axis: int | None) -> np.ndarray:
    """round_half_even(weight / scale), clamped to [-127, 127], int8."""
    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    return np.clip(np.rint(weight / scale.reshape(shape)), -127, 127).astype(np.int8)
