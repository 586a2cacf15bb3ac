"""Every integer operator spelled out element by element, in Python's integers: what its docstring says.

Slow and plain on purpose, it shares no code with the references of the operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import product
from math import isqrt, prod
from typing import Any

import numpy as np
from naive_attention import attention, attention_on_rows
from naive_functions import real_arithmetic, real_norm, real_sigmoid, write_rows
from naive_groups import group_dense, group_dequantize, group_embedding
from naive_recurrent import recurrent
from naive_rows import row_quantize, row_rescale, row_scale

from hwptq.ir.operator import Operator
from hwptq.operators.add import Add
from hwptq.operators.attention import Attention, AttentionOnRows
from hwptq.operators.avg_pool import AvgPool
from hwptq.operators.clamp import Clamp
from hwptq.operators.conv2d import Conv2d
from hwptq.operators.dense import Dense, DenseFloat
from hwptq.operators.dequantize import Dequantize
from hwptq.operators.embedding import Embedding
from hwptq.operators.group_dense import GroupDense, GroupDequantize, GroupEmbedding
from hwptq.operators.group_norm import GroupNorm
from hwptq.operators.lookup import Lookup
from hwptq.operators.masked_pool import MaskedMax, MaskedMean
from hwptq.operators.matmul import MatMul
from hwptq.operators.max_pool import MaxPool
from hwptq.operators.mul import Mul
from hwptq.operators.norm import LayerNorm, RmsNorm
from hwptq.operators.pad import Pad
from hwptq.operators.quantize import Quantize
from hwptq.operators.real_arithmetic import RealArithmetic
from hwptq.operators.real_norm import RealLayerNorm, RealRmsNorm
from hwptq.operators.real_sigmoid import RealSigmoid
from hwptq.operators.recurrent import Recurrent
from hwptq.operators.rescale import Rescale
from hwptq.operators.resize import Resize
from hwptq.operators.rows import RowQuantize, RowRescale, RowScale
from hwptq.operators.softmax import Softmax
from hwptq.operators.write_rows import WriteRows


def evaluate(op: Operator, *args: np.ndarray) -> np.ndarray:
    """The value of `op` on `args`."""
    return _FUNCTIONS[type(op)](op, *args)


def requantize(acc: int, multiplier: Any, shift: Any, op: Any) -> int:
    """Two rounding divisions by powers of two, halves up; then the zero point and the bounds. Before them a
    third, where the operator has a shift for long sums.
    """
    acc = _shortened(acc, getattr(op, "acc_shift", 0))
    high = (2 * acc * int(multiplier) + 2**31) // 2**32
    y = (2 * high + 2 ** int(shift)) // 2 ** (int(shift) + 1) + op.out_zero_point
    return max(op.lo, min(op.hi, y))


def _shortened(acc: int, by: int) -> int:
    return (2 * acc + 2**by) // 2 ** (by + 1) if by else acc


def _fill(shape: tuple[int, ...], value: Callable[..., Any], dtype: Any = np.int8) -> np.ndarray:
    out = np.empty(shape, dtype)
    for index in product(*map(range, shape)):
        out[index] = value(*index)
    return out


def _taps(x: np.ndarray, op: Any, size: Any, dilation: Any, y: int, x0: int) -> Iterator[tuple[int, ...]]:
    """(row, column, kernel row, kernel column) of a window; row and column may lie outside the image."""
    for ky, kx in product(range(size[0]), range(size[1])):
        row = y * op.strides[0] - op.padding[0] + ky * dilation[0]
        column = x0 * op.strides[1] - op.padding[1] + kx * dilation[1]
        yield row, column, ky, kx


def _inside(x: np.ndarray, row: int, column: int) -> bool:
    return 0 <= row < x.shape[1] and 0 <= column < x.shape[2]


def _conv2d(op: Conv2d, x, w, bias, multiplier, shift) -> np.ndarray:
    o, kh, kw, depth = w.shape
    height = x.shape[1] + op.padding[0] + op.padding[2] - op.dilation[0] * (kh - 1) - 1
    width = x.shape[2] + op.padding[1] + op.padding[3] - op.dilation[1] * (kw - 1) - 1

    def value(n: int, y: int, x0: int, channel: int) -> int:
        first = channel // (o // op.groups) * depth
        acc = int(bias[channel])
        for row, column, ky, kx in _taps(x, op, (kh, kw), op.dilation, y, x0):
            for i in range(depth):
                inside = _inside(x, row, column)
                pixel = int(x[n, row, column, first + i]) if inside else op.in_zero_point
                acc += pixel * int(w[channel, ky, kx, i])
        return requantize(acc, multiplier[channel], shift[channel], op)

    return _fill((x.shape[0], height // op.strides[0] + 1, width // op.strides[1] + 1, o), value, op.out)


def _dense(op: Dense, x, w, bias, multiplier, shift) -> np.ndarray:
    def value(*index: int) -> int:
        *row, channel = index
        acc = int(bias[channel]) + sum(
            int(a) * int(b) for a, b in zip(x[tuple(row)], w[channel], strict=True)
        )
        return requantize(acc, multiplier[channel], shift[channel], op)

    return _fill((*x.shape[:-1], len(w)), value, op.out)


def _dense_float(op: DenseFloat, x, w, bias, scale) -> np.ndarray:
    def value(*index: int) -> np.float32:
        *row, channel = index
        products = (int(a) * int(b) for a, b in zip(x[tuple(row)], w[channel], strict=True))
        # a product of two float32 is exact in float64, so it is rounded once
        acc = _shortened(int(bias[channel]) + sum(products), op.acc_shift)
        return np.float32(float(_nearest_float32(acc)) * float(scale[channel]))

    return _fill((*x.shape[:-1], len(w)), value, np.float32)


def _nearest_float32(value: int) -> int:
    """`value` to 24 significant bits, ties to even."""
    dropped = 2 ** max(0, abs(value).bit_length() - 24)
    quotient, rest = divmod(value, dropped)
    return dropped * (quotient + (2 * rest > dropped or (2 * rest == dropped and quotient % 2)))


def _matmul(op: MatMul, a, b) -> np.ndarray:
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (np.broadcast_to(t, (*lead, *t.shape[-2:])) for t in (a, b))

    def value(*index: int) -> int:
        *n, i, j = index
        rows, columns = a[tuple(n)], b[tuple(n)]
        acc = sum(
            (int(rows[i, k]) - op.a_zero_point) * (int(columns[k, j]) - op.b_zero_point)
            for k in range(rows.shape[1])
        )
        return requantize(acc, op.multiplier, op.shift, op)

    return _fill((*lead, a.shape[-2], b.shape[-1]), value, op.out)


def _binary(op: Any, a: np.ndarray, b: np.ndarray, acc: Callable[[int, int], int]) -> np.ndarray:
    shape = np.broadcast_shapes(a.shape, b.shape)
    a, b = np.broadcast_to(a, shape), np.broadcast_to(b, shape)

    def value(*index: int) -> int:
        total = acc(int(a[index]) - op.a_zero_point, int(b[index]) - op.b_zero_point)
        return requantize(total, op.multiplier, op.shift, op)

    return _fill(shape, value, op.out)


def _add(op: Add, a, b) -> np.ndarray:
    return _binary(op, a, b, lambda p, q: p * op.a_factor + q * op.b_factor)


def _mul(op: Mul, a, b) -> np.ndarray:
    return _binary(op, a, b, lambda p, q: int(p * q * Fraction(2) ** op.left_shift // 1))


def _clamp(op: Clamp, x, lo, hi) -> np.ndarray:
    return _fill(x.shape, lambda *i: max(lo[i[-1]], min(hi[i[-1]], x[i])), x.dtype)


def _lookup(op: Lookup, x, table) -> np.ndarray:
    return _fill(x.shape, lambda *i: table[int(x[i]) + len(table) // 2], table.dtype)


def _rescale(op: Rescale, x) -> np.ndarray:
    return _fill(x.shape, lambda *i: requantize(int(x[i]) * 16384, op.multiplier, op.shift, op), op.out)


def _max_pool(op: MaxPool, x) -> np.ndarray:
    def value(n: int, y: int, x0: int, c: int) -> int:
        taps = _taps(x, op, op.pool_size, op.dilation, y, x0)
        return max(
            (x[n, row, column, c] for row, column, *_ in taps if _inside(x, row, column)),
            default={1: -128, 2: -32768}[x.itemsize],
        )

    return _fill((x.shape[0], *op.out_shape, x.shape[3]), value, x.dtype)


def _avg_pool(op: AvgPool, x, multiplier, shift) -> np.ndarray:
    def value(n: int, y: int, x0: int, c: int) -> int:
        taps = _taps(x, op, op.pool_size, (1, 1), y, x0)
        inside = [int(x[n, row, column, c]) for row, column, *_ in taps if _inside(x, row, column)]
        pixel = y * op.out_shape[1] + x0
        acc = sum(v - op.in_zero_point for v in inside) * op.factor
        return requantize(acc, multiplier[pixel], shift[pixel], op)

    return _fill((x.shape[0], *op.out_shape, x.shape[3]), value, op.out)


def _resize(op: Resize, x, rows, columns) -> np.ndarray:
    shape = (x.shape[0], len(rows), len(columns), x.shape[3])
    return _fill(shape, lambda n, i, j, c: x[n, int(rows[i]), int(columns[j]), c], x.dtype)


def _pad(op: Pad, x) -> np.ndarray:
    shape = tuple(n + b + a for n, b, a in zip(x.shape, op.before, op.after, strict=True))

    def value(*index: int) -> int:
        source = tuple(i - b for i, b in zip(index, op.before, strict=True))
        inside = all(0 <= i < n for i, n in zip(source, x.shape, strict=True))
        return x[source] if inside else op.value

    return _fill(shape, value, x.dtype) if prod(shape) else np.empty(shape, x.dtype)


def _quantize(op: Quantize, x) -> np.ndarray:
    def value(*index: int) -> int:
        q = round(float(x[index] / np.float32(op.scale))) + op.zero_point  # round: halves to even
        low, high = {"int8": (-128, 127), "int16": (-32768, 32767)}[op.out]
        return max(low, min(high, q))

    return _fill(x.shape, value, op.out)


def _dequantize(op: Dequantize, x) -> np.ndarray:
    # the product of a 16-bit integer and a float32 is exact in float64, so this rounds once
    return _fill(x.shape, lambda *i: (int(x[i]) - op.zero_point) * float(np.float32(op.scale)), np.float32)


def _embedding(op: Embedding, index, table, multiplier, shift) -> np.ndarray:
    def value(*at: int) -> int:
        row = max(0, min(len(table) - 1, int(index[at[:-1]])))
        return requantize(int(table[row, at[-1]]) * 2**22, multiplier[row], shift[row], op)

    return _fill((*index.shape, table.shape[1]), value, op.out)


def _softmax(op: Softmax, x, *hidden) -> np.ndarray:
    masked = np.broadcast_to(hidden[0], x.shape) if hidden else np.zeros(x.shape, np.int8)
    out = np.empty(x.shape, np.int8)
    for row in np.ndindex(*x.shape[:-1]):
        values = [int(v) for v in x[row]]
        seen = [v for v, m in zip(values, masked[row], strict=True) if not m]
        e = [
            _exponential(op, max(seen) - v) if not m else 0 for v, m in zip(values, masked[row], strict=True)
        ]
        total = sum(e)
        if not total and op.alike:
            e, total = [2**15 - 1] * len(e), (2**15 - 1) * len(e)
        out[row] = [min((2 * v * (2**30 // total) + 2**22) // 2**23, 255) - 128 if total else -128 for v in e]
    return out


def _exponential(op: Softmax, difference: int) -> int:
    t = _shortened(min(difference, op.reach) * op.factor, op.shift)
    f, u = t % 2**15, 240
    for coefficient in (1773, 7862, 22713, 2**15 - 1):
        u = coefficient - (2 * u * f + 2**15) // 2**16
    return _shortened(u, t // 2**15)


def _norm(op: LayerNorm | RmsNorm, x, multiplier, bias) -> np.ndarray:
    count, f = x.shape[-1], 29 - 8 * x.dtype.itemsize
    out = np.empty(x.shape, op.out)
    for row in np.ndindex(*x.shape[:-1]):
        values = [int(v) for v in x[row]]
        total = sum(values) if op.centered else 0
        mean = (2 * 2**f * total + count) // (2 * count)
        variance = max(count * sum(v * v for v in values) - total * total + op.eps, 1)
        double = (62 - variance.bit_length()) // 2
        room = 31 - count.bit_length()
        factor, by = (count << (room + 31)) // isqrt(variance << 2 * double), room - 16 + f - double
        if factor >= 2**31:
            factor, by = factor // 2, by - 1
        lift, by = min(max(1 - by, 0), 20), min(max(by, 1), 31)
        for c, v in enumerate(values):
            n = _shortened(_shortened((2**f * v - mean) * 2**lift * factor, 31), by)
            y = _shortened(_shortened(n * int(multiplier[c]), 31) + int(bias[c]), op.shift)
            out[(*row, c)] = max(op.lo, min(op.hi, y + op.out_zero_point))
    return out


def _group_norm(op: GroupNorm, x, multiplier, bias) -> np.ndarray:
    """Group by group as a layer norm of rows, whose constants differ by channel."""
    size, out = x.shape[3] // op.groups, np.empty(x.shape, op.out)
    plain = LayerNorm(op.eps, op.shift, op.out_zero_point, op.lo, op.hi, op.out)
    for b, g in np.ndindex(x.shape[0], op.groups):
        mine = slice(g * size, (g + 1) * size)
        row = x[b, :, :, mine]
        of_row = [np.broadcast_to(v[mine], row.shape).reshape(-1) for v in (multiplier, bias)]
        out[b, :, :, mine] = _norm(plain, row.reshape(-1), *of_row).reshape(row.shape)
    return out


def _masked_mean(op: MaskedMean, x, shown, left, multiplier, shift) -> np.ndarray:
    rows, _, channels = x.shape
    out = np.empty((rows, channels), op.out)
    for n, c in np.ndindex(rows, channels):
        values = [int(v) - op.in_zero_point for v, s in zip(x[n, :, c], shown[n], strict=True) if s]
        k = len(values)
        scaled = _shortened(sum(values) * 2 ** int(left[k]) * int(multiplier[k]), 31)
        out[n, c] = max(op.lo, min(op.hi, _shortened(scaled, int(shift[k])) + op.out_zero_point))
    return out


def _masked_max(op: MaskedMax, x, shown) -> np.ndarray:
    rows, _, channels = x.shape
    out = np.full((rows, channels), np.iinfo(x.dtype).min, x.dtype)
    for n, c in np.ndindex(rows, channels):
        out[n, c] = max((v for v, s in zip(x[n, :, c], shown[n], strict=True) if s), default=out[n, c])
    return out


_FUNCTIONS: dict[type, Callable[..., np.ndarray]] = {
    Conv2d: _conv2d,
    Dense: _dense,
    DenseFloat: _dense_float,
    MatMul: _matmul,
    Add: _add,
    Mul: _mul,
    Clamp: _clamp,
    Lookup: _lookup,
    Rescale: _rescale,
    Softmax: _softmax,
    Embedding: _embedding,
    LayerNorm: _norm,
    RmsNorm: _norm,
    GroupNorm: _group_norm,
    MaskedMean: _masked_mean,
    MaskedMax: _masked_max,
    MaxPool: _max_pool,
    AvgPool: _avg_pool,
    Resize: _resize,
    Pad: _pad,
    Recurrent: recurrent,
    RowScale: row_scale,
    RowQuantize: row_quantize,
    RowRescale: row_rescale,
    Attention: attention,
    RealSigmoid: real_sigmoid,
    RealArithmetic: real_arithmetic,
    RealRmsNorm: real_norm,
    RealLayerNorm: real_norm,
    WriteRows: write_rows,
    AttentionOnRows: attention_on_rows,
    GroupDense: group_dense,
    GroupDequantize: group_dequantize,
    GroupEmbedding: group_embedding,
    Quantize: _quantize,
    Dequantize: _dequantize,
}
