"""The numpy reference of every integer operator: the oracle that all emitted code must equal bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import integer_ops as ops
from .fixed_point import requantize

ADD_FRACTION_BITS = 20
MUL_LEFT_SHIFT = 13


def evaluate(op: ops.IntegerOp, *args: np.ndarray) -> np.ndarray:
    """The value of `op` on `args`, in the order of the operator's docstring."""
    return _FUNCTIONS[type(op)](op, *args)


def windows(x: np.ndarray, size: Any, strides: Any, dilation: Any, out_shape: Any) -> np.ndarray:
    """Sliding windows of x [N,H,W,C] (already padded) as a view [N,OH,OW,C,KH,KW]."""
    (kh, kw), (sh, sw), (dh, dw), (oh, ow) = size, strides, dilation, out_shape
    n, h, w, c = x.strides
    shape = (x.shape[0], oh, ow, x.shape[3], kh, kw)
    return np.lib.stride_tricks.as_strided(x, shape, (n, h * sh, w * sw, c, h * dh, w * dw), writeable=False)


def conv_output_shape(shape: Any, size: Any, strides: Any, padding: Any, dilation: Any) -> tuple[int, int]:
    """(OH, OW) of a convolution over an input of spatial `shape` (H, W)."""
    top, left, bottom, right = padding
    h = shape[0] + top + bottom - (dilation[0] * (size[0] - 1) + 1)
    w = shape[1] + left + right - (dilation[1] * (size[1] - 1) + 1)
    return h // strides[0] + 1, w // strides[1] + 1


def exact_matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Integer a @ b as int64, through floating-point BLAS where every partial sum is exactly representable.

    |values| <= 255, so partial sums stay below 2^16 * K: exact in float32 for K <= 2^8, else in float64.
    """
    dtype = np.float32 if a.shape[-1] <= 2**8 else np.float64
    return np.matmul(a.astype(dtype), b.astype(dtype)).astype(np.int64)


def _pad_image(x: np.ndarray, padding: tuple[int, int, int, int], value: int) -> np.ndarray:
    top, left, bottom, right = padding
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)


def _conv2d(op: ops.Conv2d, x, w, bias, multiplier, shift) -> np.ndarray:
    o, kh, kw, i = w.shape
    oh, ow = conv_output_shape(x.shape[1:3], (kh, kw), op.strides, op.padding, op.dilation)
    padded = _pad_image(x, op.padding, op.in_zero_point)
    view = windows(padded, (kh, kw), op.strides, op.dilation, (oh, ow))
    n, g = x.shape[0], op.groups
    cols = view.reshape(n * oh * ow, g, i * kh * kw).transpose(1, 0, 2)
    weights = w.transpose(0, 3, 1, 2).reshape(g, o // g, i * kh * kw).transpose(0, 2, 1)
    acc = exact_matmul(cols, weights).transpose(1, 0, 2).reshape(n, oh, ow, o) + bias
    return requantize(acc, multiplier, shift, op.out_zero_point, op.lo, op.hi)


def _dense(op: ops.Dense, x, w, bias, multiplier, shift) -> np.ndarray:
    return requantize(exact_matmul(x, w.T) + bias, multiplier, shift, op.out_zero_point, op.lo, op.hi)


def _matmul(op: ops.MatMul, a, b) -> np.ndarray:
    acc = exact_matmul(a.astype(np.int32) - op.a_zero_point, b.astype(np.int32) - op.b_zero_point)
    return requantize(acc, op.multiplier, op.shift, op.out_zero_point, op.lo, op.hi)  # type: ignore[arg-type]


def _add(op: ops.Add, a, b) -> np.ndarray:
    acc = (a.astype(np.int64) - op.a_zero_point) * op.a_factor
    acc = acc + (b.astype(np.int64) - op.b_zero_point) * op.b_factor
    return requantize(acc, op.multiplier, op.shift, op.out_zero_point, op.lo, op.hi)  # type: ignore[arg-type]


def _mul(op: ops.Mul, a, b) -> np.ndarray:
    acc = (a.astype(np.int64) - op.a_zero_point) * (b.astype(np.int64) - op.b_zero_point) << MUL_LEFT_SHIFT
    return requantize(acc, op.multiplier, op.shift, op.out_zero_point, op.lo, op.hi)  # type: ignore[arg-type]


def _clamp(op: ops.Clamp, x, lo, hi) -> np.ndarray:
    return np.clip(x, lo, hi)


def _lookup(op: ops.Lookup, x, table) -> np.ndarray:
    return table[x.astype(np.int32) + 128]


def _spread(padding: Any, size: Any, strides: Any, dilation: Any, out_shape: Any, shape: Any) -> Any:
    """Padding grown at the bottom and right so that every window of a ceil-mode pooling lies inside."""
    need = [(out_shape[i] - 1) * strides[i] + dilation[i] * (size[i] - 1) + 1 for i in (0, 1)]
    top, left, bottom, right = padding
    return (top, left, max(bottom, need[0] - shape[0] - top), max(right, need[1] - shape[1] - left))


def _max_pool(op: ops.MaxPool, x) -> np.ndarray:
    padding = _spread(op.padding, op.pool_size, op.strides, op.dilation, op.out_shape, x.shape[1:3])
    padded = _pad_image(x, padding, -128)
    return windows(padded, op.pool_size, op.strides, op.dilation, op.out_shape).max(axis=(4, 5))


def _avg_pool(op: ops.AvgPool, x, multiplier, shift) -> np.ndarray:
    padding = _spread(op.padding, op.pool_size, op.strides, (1, 1), op.out_shape, x.shape[1:3])
    padded = _pad_image(x.astype(np.int32) - op.in_zero_point, padding, 0)
    acc = windows(padded, op.pool_size, op.strides, (1, 1), op.out_shape).sum(axis=(4, 5)) * op.factor
    per_pixel = (1, *op.out_shape, 1)
    return requantize(
        acc, multiplier.reshape(per_pixel), shift.reshape(per_pixel), op.out_zero_point, op.lo, op.hi
    )


def _pad(op: ops.Pad, x) -> np.ndarray:
    return np.pad(x, list(zip(op.before, op.after, strict=True)), constant_values=op.value)


def _quantize(op: ops.Quantize, x) -> np.ndarray:
    q = np.rint(x.astype(np.float32) / np.float32(op.scale)) + np.float32(op.zero_point)
    return np.clip(q, -128, 127).astype(np.int8)


def _dequantize(op: ops.Dequantize, x) -> np.ndarray:
    return (x.astype(np.int32) - op.zero_point).astype(np.float32) * np.float32(op.scale)


_FUNCTIONS: dict[type, Callable[..., np.ndarray]] = {
    ops.Conv2d: _conv2d,
    ops.Dense: _dense,
    ops.MatMul: _matmul,
    ops.Add: _add,
    ops.Mul: _mul,
    ops.Clamp: _clamp,
    ops.Lookup: _lookup,
    ops.MaxPool: _max_pool,
    ops.AvgPool: _avg_pool,
    ops.Pad: _pad,
    ops.Quantize: _quantize,
    ops.Dequantize: _dequantize,
}
