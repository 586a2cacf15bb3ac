"""The numpy reference of every integer operator: the oracle that all emitted code must equal bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import fp8_reference
from . import integer_ops as ops
from .fixed_point import requantize
from .integer_sums import convolution_sum, exact_matmul
from .window import ceil_padding, pad_image, windows

ADD_FRACTION_BITS = 20
MUL_LEFT_SHIFT = 13


def evaluate(op: ops.GraphOp, *args: np.ndarray) -> np.ndarray:
    """The value of `op` on `args`, in the order of the operator's docstring."""
    return _FUNCTIONS[type(op)](op, *args)


def _conv2d(op: ops.Conv2d, x, w, bias, multiplier, shift) -> np.ndarray:
    acc = convolution_sum(op, x, w, bias)
    return requantize(acc, multiplier, shift, op.out_zero_point, op.lo, op.hi)


def _dense(op: ops.Dense, x, w, bias, multiplier, shift) -> np.ndarray:
    return requantize(exact_matmul(x, w.T) + bias, multiplier, shift, op.out_zero_point, op.lo, op.hi)


def _dense_float(op: ops.DenseFloat, x, w, bias, scale) -> np.ndarray:
    return (exact_matmul(x, w.T) + bias).astype(np.float32) * scale


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


def _max_pool(op: ops.MaxPool, x) -> np.ndarray:
    padding = ceil_padding(op.padding, op.pool_size, op.strides, op.dilation, op.out_shape, x.shape[1:3])
    padded = pad_image(x, padding, -128)
    return windows(padded, op.pool_size, op.strides, op.dilation, op.out_shape).max(axis=(4, 5))


def _avg_pool(op: ops.AvgPool, x, multiplier, shift) -> np.ndarray:
    padding = ceil_padding(op.padding, op.pool_size, op.strides, (1, 1), op.out_shape, x.shape[1:3])
    padded = pad_image(x.astype(np.int32) - op.in_zero_point, padding, 0)
    acc = windows(padded, op.pool_size, op.strides, (1, 1), op.out_shape).sum(axis=(4, 5)) * op.factor
    per_pixel = (1, *op.out_shape, 1)
    return requantize(
        acc, multiplier.reshape(per_pixel), shift.reshape(per_pixel), op.out_zero_point, op.lo, op.hi
    )


def _resize(op: ops.Resize, x, rows, columns) -> np.ndarray:
    return x[:, rows][:, :, columns]


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
    ops.DenseFloat: _dense_float,
    ops.MatMul: _matmul,
    ops.Add: _add,
    ops.Mul: _mul,
    ops.Clamp: _clamp,
    ops.Lookup: _lookup,
    ops.MaxPool: _max_pool,
    ops.AvgPool: _avg_pool,
    ops.Resize: _resize,
    ops.Pad: _pad,
    ops.Quantize: _quantize,
    ops.Dequantize: _dequantize,
    **fp8_reference.FUNCTIONS,
}
