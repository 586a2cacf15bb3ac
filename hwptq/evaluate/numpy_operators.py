"""Float operators in numpy: each takes a call, reads its attributes once, and gives a function of arrays.

That function returns None where numpy does not offer what the call asks for; the call is then compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hwptq.formats import format_of, holds_codes, is_cast
from hwptq.ir.dataflow import slice_bounds
from hwptq.ir.movement import order_of_axes

from ..quant.window import conv_output_shape, windows

Evaluate = Callable[..., np.ndarray | None]
#: Sums of a depthwise convolution that are made at once.
_CACHED = 2**16


def _conv2d(call: Any) -> Evaluate | None:
    a = call.attrs
    if str(a.data_layout) != "NCHW" or str(a.kernel_layout) != "OIHW":
        return None
    padding, strides, dilation = ([int(v) for v in p] for p in (a.padding, a.strides, a.dilation))
    groups, (top, left, bottom, right) = int(a.groups), padding

    def evaluate(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        out = conv_output_shape(x.shape[2:], w.shape[2:], strides, padding, dilation)
        if any(padding):
            height, width = x.shape[2:]
            image = np.zeros((*x.shape[:2], top + height + bottom, left + width + right), x.dtype)
            image[:, :, top : top + height, left : left + width] = x
            x = image
        if w.shape[1] == 1 and groups == x.shape[1] == w.shape[0]:
            return _depthwise(x, w, strides, dilation, out)
        return _by_matmul(x, w, strides, dilation, out, groups)

    return evaluate


def _by_matmul(
    x: np.ndarray, w: np.ndarray, strides: Any, dilation: Any, out: tuple[int, int], groups: int
) -> np.ndarray:
    """Convolution of a padded image as a product of its weights and its windows."""
    n, (o, i, kh, kw), pixels = len(x), w.shape, out[0] * out[1]
    if groups == kh == kw == 1:
        taken = x[:, :, :: strides[0], :: strides[1]][:, :, : out[0], : out[1]]
        return np.matmul(w.reshape(o, i), taken.reshape(n, i, pixels)).reshape(n, o, *out)
    view = windows(x.transpose(0, 2, 3, 1), (kh, kw), strides, dilation, out)
    cols = view.transpose(0, 3, 4, 5, 1, 2).reshape(n, groups, i * kh * kw, pixels)
    return np.matmul(w.reshape(1, groups, o // groups, i * kh * kw), cols).reshape(n, o, *out)


def _depthwise(x: np.ndarray, w: np.ndarray, strides: Any, dilation: Any, out: Any) -> np.ndarray:
    """Some channels at a time, so that sums stay in a cache."""
    acc = np.zeros((*x.shape[:2], *out), dtype=np.float32)
    count = max(1, _CACHED // (len(x) * out[0] * out[1]))
    product = np.empty_like(acc[:, :count])
    for first in range(0, x.shape[1], count):
        some = slice(first, first + count)
        sums = acc[:, some]
        for ky in range(w.shape[2]):
            for kx in range(w.shape[3]):
                y0, x0 = ky * dilation[0], kx * dilation[1]
                rows = slice(y0, y0 + (out[0] - 1) * strides[0] + 1, strides[0])
                cols = slice(x0, x0 + (out[1] - 1) * strides[1] + 1, strides[1])
                terms = product[:, : sums.shape[1]]
                np.multiply(x[:, some, rows, cols], w[some, 0, ky, kx][None, :, None, None], out=terms)
                sums += terms
    return acc


def _reshape(call: Any) -> Evaluate:
    shape = [int(d) for d in call.ty.shape.values]
    return lambda x: x.reshape(shape)


def _permute(call: Any) -> Evaluate:
    axes = order_of_axes(call)
    return lambda x: np.transpose(x, axes)


def _concat(call: Any) -> Evaluate:
    axis = 0 if call.attrs.axis is None else int(call.attrs.axis)
    return lambda parts: np.concatenate(parts, axis)


def _slice(call: Any) -> Evaluate | None:
    axes, begin, end, strides = slice_bounds(call)
    if min(strides) < 1:
        return None
    taken = {a: slice(*bounds) for a, *bounds in zip(axes, begin, end, strides, strict=True)}
    return lambda x: x[tuple(taken.get(a, taken.get(a - x.ndim, slice(None))) for a in range(x.ndim))]


def _leaky_relu(call: Any) -> Evaluate:
    slope = np.float32(call.attrs.alpha)
    return lambda x: np.where(x > 0, x, x * slope) if x.dtype == np.float32 else None


def _clip(call: Any) -> Evaluate:
    low, high = (np.float32(a.value) for a in call.args[1:])
    return lambda x: np.clip(x, low, high)


def _along(axis: int, values: np.ndarray, rank: int) -> np.ndarray:
    """Scales or zero points of a tensor of `rank`, shaped to be broadcast along `axis`."""
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape) if values.size > 1 else values.reshape(())


def _quantize(call: Any) -> Evaluate | None:
    if not holds_codes(str(call.attrs.out_dtype)):
        return None
    axis, codec = int(call.attrs.axis), format_of(str(call.attrs.out_dtype))

    def evaluate(x: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray | None:
        if x.dtype != np.float32:
            return None
        return codec.encode(x, _along(axis, scale, x.ndim), _along(axis, zero, x.ndim))

    return evaluate


def _dequantize(call: Any) -> Evaluate | None:
    if str(call.attrs.out_dtype) != "float32":
        return None
    axis = int(call.attrs.axis)

    def evaluate(x: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray | None:
        dtype = str(x.dtype)
        if not holds_codes(dtype) or zero.dtype != format_of(dtype).zero_dtype:
            return None
        return format_of(dtype).decode(x, _along(axis, scale, x.ndim), _along(axis, zero, x.ndim))

    return evaluate


def _cast(call: Any) -> Evaluate | None:
    """To a format without a scale and from it: TVM's own casts to bfloat16 are not defined for NaN."""
    to = str(call.attrs.dtype)

    def encode(x: np.ndarray) -> np.ndarray | None:
        return format_of(to).encode(x) if x.dtype == np.float32 else None

    def decode(x: np.ndarray) -> np.ndarray | None:
        return format_of(str(x.dtype)).decode(x) if is_cast(str(x.dtype)) else None

    if is_cast(to):
        return encode
    return decode if to == "float32" else None


def _float_only(f: Callable[..., np.ndarray]) -> Callable[[Any], Evaluate]:
    def evaluate(*args: np.ndarray) -> np.ndarray | None:
        return f(*args) if all(a.dtype == np.float32 for a in args) else None

    return lambda call: evaluate


_OPERATORS: dict[str, Callable[[Any], Evaluate | None]] = {
    "nn.conv2d": _conv2d,
    "matmul": _float_only(np.matmul),
    "add": _float_only(np.add),
    "subtract": _float_only(np.subtract),
    "multiply": _float_only(np.multiply),
    "maximum": _float_only(np.maximum),
    "minimum": _float_only(np.minimum),
    "nn.relu": _float_only(lambda x: np.maximum(x, np.float32(0))),
    "clip": _clip,
    "nn.leakyrelu": _leaky_relu,
    "concat": _concat,
    "strided_slice": _slice,
    "reshape": _reshape,
    "permute_dims": _permute,
    "quantize": _quantize,
    "dequantize": _dequantize,
    "astype": _cast,
    "builtin.stop_lift_params": lambda call: lambda x: x,
}


def prepare(name: str, call: Any) -> Evaluate | None:
    """The function that evaluates a call of the operator `name`, or None where there is none."""
    return _OPERATORS[name](call) if name in _OPERATORS else None
