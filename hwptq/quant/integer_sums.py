"""Exact sums of products of integers, in numpy: what the accumulators of all layers in integers hold."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from .window import conv_output_shape, pad_image, windows

_BYTES = 2**16  # above each product of two int8 values, zero points taken off


def exact_matmul(a: np.ndarray, b: np.ndarray, product: int = _BYTES) -> np.ndarray:
    """Integer a @ b as int64, through floating-point BLAS where every partial sum is exactly representable.

    Each product is at most `product`, and sums of K of them at most `product` * K: up to 2^24 in float32,
    else in float64.
    """
    dtype = np.float32 if a.shape[-1] * product <= 2**24 else np.float64
    return np.matmul(a.astype(dtype), b.astype(dtype)).astype(np.int64)


def largest_product(*operands: np.ndarray) -> int:
    """What no product of a value of each operand exceeds, zero points taken off."""
    return prod(2 ** (8 * t.dtype.itemsize) for t in operands)


def convolution_sum(op: Any, x: np.ndarray, w: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """acc = bias + sum x*w of a convolution: int64 [N,OH,OW,O]. `op` has the fields of Conv2d."""
    o, kh, kw, i = w.shape
    oh, ow = conv_output_shape(x.shape[1:3], (kh, kw), op.strides, op.padding, op.dilation)
    padded = pad_image(x, op.padding, op.in_zero_point)
    if i == 1 and o == op.groups:
        return _depthwise_sum(op, padded, w, (oh, ow)) + bias
    view = windows(padded, (kh, kw), op.strides, op.dilation, (oh, ow))
    n, g = x.shape[0], op.groups
    cols = view.reshape(n * oh * ow, g, i * kh * kw).transpose(1, 0, 2)
    weights = w.transpose(0, 3, 1, 2).reshape(g, o // g, i * kh * kw).transpose(0, 2, 1)
    acc = exact_matmul(cols, weights, largest_product(x, w))
    return acc.transpose(1, 0, 2).reshape(n, oh, ow, o) + bias


def _depthwise_sum(op: Any, padded: np.ndarray, w: np.ndarray, out: tuple[int, int]) -> np.ndarray:
    """The sums of a filter a channel, tap by tap over whole images: as exact as exact_matmul."""
    _, kh, kw, _ = w.shape
    dtype = np.float32 if kh * kw * largest_product(padded, w) <= 2**24 else np.float64
    x, acc = padded.astype(dtype), np.zeros((len(padded), *out, w.shape[0]), dtype)
    for ky, kx in np.ndindex(kh, kw):
        rows, columns = (
            slice(k * d, k * d + (size - 1) * s + 1, s)
            for k, d, size, s in zip((ky, kx), op.dilation, out, op.strides, strict=True)
        )
        acc += x[:, rows, columns] * w[:, ky, kx, 0].astype(dtype)
    return acc.astype(np.int64)
