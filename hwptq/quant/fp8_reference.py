"""The numpy reference of every fp8 operator: what the code on the chip must equal bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product as pairs

import numpy as np

from hwptq.formats import bf16, fp8

from . import fp8_ops as ops
from .bf16_accumulate import exact_products, multiply_add
from .float_sums import product
from .fma import fma
from .fp8_accumulate import Accumulator
from .integer_sums import convolution_sum, exact_matmul
from .window import ceil_padding, conv_output_shape, pad_image, windows


def clamp(y: np.ndarray, lo: float, hi: float) -> np.ndarray:
    """y in [lo, hi]; NaN becomes lo, as fmaxf has it. Without a bound there is no operation."""
    if lo > -np.inf:
        y = np.where(y > np.float32(lo), y, np.float32(lo))
    if hi < np.inf:
        y = np.where(y < np.float32(hi), y, np.float32(hi))
    return y


def store(y: np.ndarray, out: str, zero_point: int = 0) -> np.ndarray:
    """float32 `y` as the dtype `out`; see fp8_ops."""
    if out == fp8.DTYPE:
        return fp8.as_float8(fp8.encode(y))
    if out == bf16.DTYPE:
        return bf16.encode(y)
    if out == "int8":
        return clamp(np.rint(y) + np.float32(zero_point), -128, 127).astype(np.int8)
    return y.astype(np.float32)


def value(x: np.ndarray, zero_point: int = 0) -> np.ndarray:
    """What the codes of a tensor in e4m3, bfloat16 or int8 stand for: float32, exact."""
    if x.dtype == np.int8:
        return (x.astype(np.int32) - zero_point).astype(np.float32)
    return bf16.decode(x) if x.dtype == bf16.DTYPE else fp8.decode(fp8.as_codes(x))


def codes(x: np.ndarray) -> np.ndarray:
    """The bits of a tensor in e4m3 or bfloat16 as whole numbers: uint8 or uint16."""
    return bf16.as_codes(x) if x.dtype == bf16.DTYPE else fp8.as_codes(x)


def _finish(op: ops.Fp8Conv2d | ops.Fp8Dense, acc, scale, bias, residual) -> np.ndarray:
    """From the accumulator, in the output's shape, to the output."""
    y = fma(acc, scale, bias)
    for r in residual:
        y = fma(value(r, op.residual_zero_point), np.asarray(op.residual, np.float32), y)
    return store(clamp(y, op.lo, op.hi), op.out, op.out_zero_point)


def _conv2d(op: ops.Fp8Conv2d, x, *args) -> np.ndarray:
    *residual, w, scale, bias = args
    o, kh, kw, _ = w.shape
    oh, ow = conv_output_shape(x.shape[1:3], (kh, kw), op.strides, op.padding, op.dilation)
    padded = pad_image(codes(x), op.padding, 0).view(x.dtype)
    view = windows(padded, (kh, kw), op.strides, op.dilation, (oh, ow)).transpose(0, 1, 2, 4, 5, 3)
    if op.groups == 1:
        step, _, _ = op.accumulator
        parts = ops.parts_of_window(w.shape, step)
        cols, rows = (_parts(t.reshape(-1, *parts), step) for t in (view, w))
        acc = product(cols, rows, Accumulator(*op.accumulator))
    else:
        acc = _grouped(view, w, op.groups)
    return _finish(op, acc.reshape(x.shape[0], oh, ow, o), scale, bias, residual)


def _parts(x: np.ndarray, step: int) -> np.ndarray:
    """[rows, parts, products of each] -> [rows, K], each part filled with zeros to whole steps."""
    filled = np.pad(codes(x), [(0, 0), (0, 0), (0, -x.shape[2] % step)])
    return filled.reshape(len(x), -1).view(x.dtype)


def _grouped(view: np.ndarray, w: np.ndarray, groups: int) -> np.ndarray:
    """The sums of a grouped convolution in order; view [N,OH,OW,KH,KW,C]."""
    o, kh, kw, depth = w.shape
    x = value(view).reshape(*view.shape[:5], groups, 1, depth)
    weights = value(w).reshape(groups, o // groups, kh, kw, depth)
    exact = exact_products(x, weights)
    acc = np.zeros((*view.shape[:3], groups, o // groups), np.float32)
    for ky, kx, i in pairs(range(kh), range(kw), range(depth)):
        acc = multiply_add(acc, x[:, :, :, ky, kx, :, :, i], weights[:, :, ky, kx, i], exact)
    return acc


def _dense(op: ops.Fp8Dense, x, *args) -> np.ndarray:
    *residual, w, scale, bias = args
    acc = product(x.reshape(-1, x.shape[-1]), w, Accumulator(*op.accumulator))
    return _finish(op, acc.reshape(*x.shape[:-1], len(w)), scale, bias, residual)


def _to_fp8(op: ops.LayerToFp8, acc: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return store(clamp(acc.astype(np.float32) * scale, op.lo, op.hi), op.out)


def _conv2d_to_fp8(op: ops.Conv2dToFp8, x, w, bias, scale) -> np.ndarray:
    return _to_fp8(op, convolution_sum(op, x, w, bias), scale)


def _dense_to_fp8(op: ops.DenseToFp8, x, w, bias, scale) -> np.ndarray:
    return _to_fp8(op, exact_matmul(x, w.T) + bias, scale)


def _matmul(op: ops.Fp8MatMul, a, b) -> np.ndarray:
    acc = product(a, np.ascontiguousarray(np.swapaxes(b, -1, -2)), Accumulator(*op.accumulator))
    return store(clamp(acc * np.float32(op.factor), op.lo, op.hi), op.out, op.out_zero_point)


def _add(op: ops.Fp8Add, a, b) -> np.ndarray:
    scaled = value(b, op.b_zero_point) * np.float32(op.b_factor)
    y = fma(value(a, op.a_zero_point), np.asarray(op.a_factor, np.float32), scaled)
    return store(clamp(y, op.lo, op.hi), op.out, op.out_zero_point)


def _mul(op: ops.Fp8Mul, a, b) -> np.ndarray:
    y = value(a, op.a_zero_point) * value(b, op.b_zero_point) * np.float32(op.factor)
    return store(clamp(y, op.lo, op.hi), op.out, op.out_zero_point)


def _clamp(op: ops.Fp8Clamp, x, lo, hi) -> np.ndarray:
    y, low, high = (value(t) for t in (x, lo, hi))
    y = np.where(y > low, y, low)
    return store(np.where(y < high, y, high), str(x.dtype))


def _lookup(op: ops.Fp8Lookup, x, table) -> np.ndarray:
    return table[codes(x)]


def _window(
    op: ops.Fp8MaxPool | ops.Fp8AvgPool, x: np.ndarray, dilation: tuple[int, int], fill: float, zero: int = 0
):
    """float32 windows [N,OH,OW,C,KH,KW] of images."""
    padding = ceil_padding(op.padding, op.pool_size, op.strides, dilation, op.out_shape, x.shape[1:3])
    padded = pad_image(value(x, zero), padding, np.float32(fill))
    return windows(padded, op.pool_size, op.strides, dilation, op.out_shape)


def _max_pool(op: ops.Fp8MaxPool, x) -> np.ndarray:
    view = _window(op, x, op.dilation, -np.inf)
    best = np.full(view.shape[:4], -np.inf, np.float32)
    for ky, kx in np.ndindex(*op.pool_size):
        best = np.where(view[..., ky, kx] > best, view[..., ky, kx], best)
    return store(best, str(x.dtype))


def _avg_pool(op: ops.Fp8AvgPool, x, factor) -> np.ndarray:
    view = _window(op, x, (1, 1), 0, op.in_zero_point)
    acc = np.zeros(view.shape[:4], np.float32)
    for ky, kx in np.ndindex(*op.pool_size):
        acc = acc + view[..., ky, kx]
    y = acc * factor.reshape(1, *op.out_shape, 1)
    return store(clamp(y, op.lo, op.hi), op.out, op.out_zero_point)


def _pad(op: ops.Fp8Pad, x) -> np.ndarray:
    widths = list(zip(op.before, op.after, strict=True))
    return np.pad(codes(x), widths, constant_values=op.value).view(x.dtype)


def _quantize(op: ops.Fp8Quantize, x) -> np.ndarray:
    with np.errstate(over="ignore"):
        return store(x.astype(np.float32) * np.float32(op.factor), op.out)


def _dequantize(op: ops.Fp8Dequantize, x) -> np.ndarray:
    return value(x) * np.float32(op.scale)


FUNCTIONS: dict[type, Callable[..., np.ndarray]] = {
    ops.Fp8Conv2d: _conv2d,
    ops.Fp8Dense: _dense,
    ops.Conv2dToFp8: _conv2d_to_fp8,
    ops.DenseToFp8: _dense_to_fp8,
    ops.Fp8MatMul: _matmul,
    ops.Fp8Add: _add,
    ops.Fp8Mul: _mul,
    ops.Fp8Clamp: _clamp,
    ops.Fp8Lookup: _lookup,
    ops.Fp8MaxPool: _max_pool,
    ops.Fp8AvgPool: _avg_pool,
    ops.Fp8Pad: _pad,
    ops.Fp8Quantize: _quantize,
    ops.Fp8Dequantize: _dequantize,
}
