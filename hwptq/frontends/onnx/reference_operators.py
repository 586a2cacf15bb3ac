"""Operators for onnx.reference: those of its own that take minutes on an image, or differ from the standard.

Written from the standard's text and in numpy alone, so that nothing is shared with what they check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from onnx.reference.op_run import OpRun
from onnx.reference.ops import op_resize, op_roi_align

from .reference_loops import Loop, Scan
from .reference_recurrent import GRU, LSTM, RNN
from .reference_selections import GatherElements

#: Elements of an image that an operator of onnx gets which takes them one by one.
_MOST_PIXELS = 2**14


def refuse_large(x: np.ndarray, op: str) -> None:
    """Raise NotImplementedError where `op` of onnx would take minutes."""
    if x.size > _MOST_PIXELS:
        raise NotImplementedError(f"{op} of {x.size} elements takes long")


def _pads(
    auto_pad: str | None, pads: Sequence[int] | None, sizes: Sequence[int], extents: Sequence[int],
    strides: Sequence[int],
) -> tuple[list[int], list[int]]:  # fmt: skip
    """(before, after) of each spatial axis; extents: of the dilated kernel."""
    rank = len(sizes)
    if auto_pad in (None, "NOTSET"):
        pads = list(pads or [0] * 2 * rank)
        return pads[:rank], pads[rank:]
    if auto_pad == "VALID":
        return [0] * rank, [0] * rank
    total = [max(0, (ceil(n / s) - 1) * s + e - n) for n, e, s in zip(sizes, extents, strides, strict=True)]
    less, more = [t // 2 for t in total], [t - t // 2 for t in total]
    return (less, more) if auto_pad == "SAME_UPPER" else (more, less)


def _padded(x: np.ndarray, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> np.ndarray:
    return np.pad(x, [(0, 0), (0, 0), *zip(before, after, strict=True)], constant_values=value)


def _taps(
    kernel: Sequence[int], dilations: Sequence[int], strides: Sequence[int], count: Sequence[int]
) -> Iterator[tuple[Any, Any]]:
    """(index of the tap, the slices of the padded image that it meets at `count` places)."""
    for tap in product(*map(range, kernel)):
        starts = [t * d for t, d in zip(tap, dilations, strict=True)]
        cut = [slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, count, strides, strict=True)]
        yield tap, (slice(None), slice(None), *cut)


class Conv(OpRun):
    """A matrix product for each tap of the kernel, without a column for each pixel."""

    def _run(
        self, X, W, B=None, auto_pad=None, dilations=None, group=None, kernel_shape=None, pads=None,
        strides=None,
    ):  # fmt: skip
        kernel = W.shape[2:]
        rank, group = len(kernel), group or 1
        dilations, strides = dilations or [1] * rank, strides or [1] * rank
        extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        x = _padded(X, *_pads(auto_pad, pads, X.shape[2:], extents, strides))
        count = [(n - e) // s + 1 for n, e, s in zip(x.shape[2:], extents, strides, strict=True)]
        w = W.reshape(group, W.shape[0] // group, W.shape[1], *kernel)
        out = np.zeros((X.shape[0], group, w.shape[1], prod(count)), X.dtype)
        for tap, cut in _taps(kernel, dilations, strides, count):
            out += w[(..., *tap)] @ x[cut].reshape(X.shape[0], group, W.shape[1], prod(count))
        out = out.reshape(X.shape[0], W.shape[0], *count)
        return (out if B is None else out + B.reshape(-1, *[1] * rank),)


class ConvTranspose(OpRun):
    """Each pixel adds the kernel, times its value, to the output."""

    def _run(
        self, X, W, B=None, auto_pad=None, dilations=None, group=None, kernel_shape=None,
        output_padding=None, output_shape=None, pads=None, strides=None,
    ):  # fmt: skip
        kernel, sizes = W.shape[2:], X.shape[2:]
        rank, group = len(kernel), group or 1
        dilations, strides = dilations or [1] * rank, strides or [1] * rank
        more = output_padding or [0] * rank
        extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        whole = [(n - 1) * s + e for n, s, e in zip(sizes, strides, extents, strict=True)]
        if not output_shape and auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            output_shape = [n * s for n, s in zip(sizes, strides, strict=True)]
        if output_shape:
            output_shape = list(output_shape)[-rank:]
            total = [w + p - o for w, p, o in zip(whole, more, output_shape, strict=True)]
            half = [t // 2 for t in total]
            rest = [t - h for t, h in zip(total, half, strict=True)]
            begin = [max(b, 0) for b in (half if auto_pad == "SAME_UPPER" else rest)]
        else:
            before, after = _pads(auto_pad, pads, sizes, extents, strides)
            begin = before
            output_shape = [w + p - b - a for w, p, b, a in zip(whole, more, before, after, strict=True)]
        x = X.reshape(X.shape[0], group, X.shape[1] // group, prod(sizes))
        w = W.reshape(group, X.shape[1] // group, W.shape[1], *kernel)
        room = [max(n, b + o) for n, b, o in zip(whole, begin, output_shape, strict=True)]
        full = np.zeros((X.shape[0], group * W.shape[1], *room), X.dtype)
        for tap, cut in _taps(kernel, dilations, strides, sizes):
            full[cut] += (w[(..., *tap)].swapaxes(1, 2) @ x).reshape(X.shape[0], -1, *sizes)
        places = [slice(b, b + o) for b, o in zip(begin, output_shape, strict=True)]
        out = full[(slice(None), slice(None), *places)]
        return (out if B is None else out + B.reshape(-1, *[1] * rank),)


def _windows(
    x: np.ndarray, fill: float, kernel: Sequence[int], auto_pad: str | None, pads: Any, strides: Any,
    dilations: Any, ceil_mode: int | None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Windows [N, C, *count, *kernel] of the padded image, and which of their places are not beyond the
    padding: [*count, *kernel]."""
    rank, sizes = len(kernel), x.shape[2:]
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    before, after = _pads(auto_pad, pads, sizes, extents, strides)
    padded = [n + a + b for n, a, b in zip(sizes, before, after, strict=True)]
    rounded: Callable[[float], int] = ceil if ceil_mode else int
    count = [rounded((n - e) / s) + 1 for n, e, s in zip(padded, extents, strides, strict=True)]
    if ceil_mode:  # no window begins in the padding behind the image
        count = [c - ((c - 1) * s >= n + a) for c, s, n, a in zip(count, strides, sizes, before, strict=True)]
    need = [max(0, (c - 1) * s + e - n) for c, s, e, n in zip(count, strides, extents, padded, strict=True)]
    image = _padded(x, before, [a + m for a, m in zip(after, need, strict=True)], fill)
    inside = np.pad(np.ones(padded, bool), [(0, m) for m in need])
    axes = tuple(range(-rank, 0))
    places = (*(slice(0, (c - 1) * s + 1, s) for c, s in zip(count, strides, strict=True)),)
    taps = (*(slice(None, None, d) for d in dilations),)
    windows = sliding_window_view(image, extents, axes)[(slice(None), slice(None), *places, *taps)]
    return windows, sliding_window_view(inside, extents, axes)[(*places, *taps)]


class MaxPool(OpRun):
    """Maxima of windows; the indices are not offered."""

    def _run(
        self, x, auto_pad=None, ceil_mode=None, dilations=None, kernel_shape=None, pads=None,
        storage_order=None, strides=None,
    ):  # fmt: skip
        if len(self.onnx_node.output) > 1:
            raise NotImplementedError("MaxPool with indices")
        fill = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        windows, _ = _windows(x, fill, kernel_shape, auto_pad, pads, strides, dilations, ceil_mode)
        return (windows.max(axis=tuple(range(-len(kernel_shape), 0))),)


class GlobalMaxPool(OpRun):
    """Maxima of images of any number of axes; onnx's own are those of two."""

    def _run(self, x):
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


class AveragePool(OpRun):
    """Means of windows, over the pixels of the image, or those of the padding too."""

    def _run(
        self, x, auto_pad=None, ceil_mode=None, count_include_pad=None, dilations=None, kernel_shape=None,
        pads=None, strides=None,
    ):  # fmt: skip
        how = (kernel_shape, auto_pad, pads, strides, dilations, ceil_mode)
        windows, inside = _windows(x, 0.0, *how)
        if not count_include_pad:
            inside = _windows(np.ones((1, 1, *x.shape[2:]), x.dtype), 0.0, *how)[0][0, 0]
        axes = tuple(range(-len(kernel_shape), 0))
        return ((windows.sum(axis=axes) / inside.sum(axis=axes)).astype(x.dtype),)


class BatchNormalization(OpRun):
    """With the given mean and variance, also where the file has a momentum."""

    def _run(
        self, x, scale, bias, mean, var, epsilon=None, momentum=None, training_mode=None, spatial=None
    ):  # fmt: skip
        if training_mode or len(self.onnx_node.output) > 1:
            raise NotImplementedError("BatchNormalization in training")
        scale, bias, mean, var = (v.reshape(-1, *[1] * (x.ndim - 2)) for v in (scale, bias, mean, var))
        return (((x - mean) / np.sqrt(var + epsilon) * scale + bias).astype(x.dtype),)


class _Flattened(OpRun):
    """Over the last axis of the matrix that `axis` divides the tensor into, before opset 13."""

    def _run(self, x, axis=None):
        if self.run_params["opsets"][""] < 13:
            given = [a.i for a in self.onnx_node.attribute if a.name == "axis"]
            split = (given or [1])[0] % max(x.ndim, 1)
            return (self.over(x.reshape(prod(x.shape[:split]), -1), 1).reshape(x.shape),)
        return (self.over(x, -1 if axis is None else axis),)

    def over(self, x: np.ndarray, axis: int) -> np.ndarray:
        raise NotImplementedError


class Softmax(_Flattened):
    """exp(x) by its sum."""

    def over(self, x: np.ndarray, axis: int) -> np.ndarray:
        powers = np.exp(x - x.max(axis=axis, keepdims=True))
        return np.asarray(powers / powers.sum(axis=axis, keepdims=True)).astype(x.dtype)


class LogSoftmax(_Flattened):
    """x less the logarithm of the sum of exp(x)."""

    def over(self, x: np.ndarray, axis: int) -> np.ndarray:
        moved = x - x.max(axis=axis, keepdims=True)
        return np.asarray(moved - np.log(np.exp(moved).sum(axis=axis, keepdims=True))).astype(x.dtype)


class Hardmax(_Flattened):
    """1 at the first maximum, else 0."""

    def over(self, x: np.ndarray, axis: int) -> np.ndarray:
        out = np.zeros_like(x)
        np.put_along_axis(out, np.expand_dims(x.argmax(axis=axis), axis), 1, axis=axis)
        return out


class LpNormalization(OpRun):
    """x / |x|, with the absolute values that the 1-norm needs; 0 where |x| is 0."""

    def _run(self, x, axis=None, p=None):
        norm = np.linalg.norm(x, ord=p or 2, axis=-1 if axis is None else axis, keepdims=True)
        return (np.divide(x, norm, out=np.zeros_like(x), where=norm != 0),)


class Resize(op_resize.Resize):
    """An interpolation matrix for each axis, to the nearest pixel or linear; also Resize of opset 10.

    Other modes are those of onnx, which computes them pixel by pixel.
    """

    def _run(
        self, x, roi=None, scales=None, sizes=None, antialias=None, axes=None,
        coordinate_transformation_mode=None, cubic_coeff_a=None, exclude_outside=None,
        extrapolation_value=None, keep_aspect_ratio_policy=None, mode=None, nearest_mode=None,
    ):  # fmt: skip
        if coordinate_transformation_mode is None:  # before opset 11
            roi, scales, coordinate_transformation_mode, nearest_mode = None, roi, "asymmetric", "floor"
        stretched = keep_aspect_ratio_policy in (None, "stretch")
        known = mode in ("nearest", "linear") and coordinate_transformation_mode in _COORDINATES
        if coordinate_transformation_mode == "align_corners" and scales is not None and len(scales):
            along = range(x.ndim) if axes is None else axes  # whole sizes count, which onnx does not cut
            whole = [np.floor(x.shape[a] * np.float32(s)) for a, s in zip(along, scales, strict=True)]
            scales, sizes = None, np.array(whole, np.int64)
        if antialias or not stretched or not known:
            refuse_large(x, "Resize")
            return super()._run(
                x, roi, scales, sizes, antialias, axes, coordinate_transformation_mode, cubic_coeff_a,
                exclude_outside, extrapolation_value, keep_aspect_ratio_policy, mode, nearest_mode,
            )  # fmt: skip
        axes = list(range(x.ndim)) if axes is None else [a % x.ndim for a in axes]
        if sizes is None or not len(sizes):
            sizes = [int(np.floor(x.shape[a] * np.float32(s))) for a, s in zip(axes, scales, strict=True)]
        else:
            scales = [n / x.shape[a] for a, n in zip(axes, sizes, strict=True)]
        out = x.astype(np.float64)
        for axis, size, scale in zip(axes, sizes, scales, strict=True):
            if (size, scale) != (x.shape[axis], 1):
                places = _coordinates(coordinate_transformation_mode, int(size), x.shape[axis], float(scale))
                matrix = _nearest(places, x.shape[axis], nearest_mode)
                if mode == "linear":
                    matrix = _linear(places, x.shape[axis])
                out = np.moveaxis(np.tensordot(matrix, out, (1, axis)), 0, axis)
        return (out.astype(x.dtype),)


_COORDINATES = ("asymmetric", "align_corners", "half_pixel", "pytorch_half_pixel")


def _coordinates(how: str, size: int, old: int, scale: float) -> np.ndarray:
    """Where in the old axis each of `size` pixels lies."""
    i = np.arange(size)
    if how == "asymmetric":
        return i / scale
    if how == "align_corners":
        return i * (old - 1) / (size - 1) if size > 1 else np.zeros(1)
    if how == "pytorch_half_pixel" and size == 1:
        return np.zeros(1)
    return (i + 0.5) / scale - 0.5


def _nearest(places: np.ndarray, old: int, rounding: str | None) -> np.ndarray:
    """Matrix [new, old]."""
    rounded = {
        "round_prefer_ceil": np.floor(places + 0.5),
        "floor": np.floor(places),
        "ceil": np.ceil(places),
    }.get(str(rounding), np.ceil(places - 0.5))
    return np.eye(old)[np.clip(rounded, 0, old - 1).astype(int)]


def _linear(places: np.ndarray, old: int) -> np.ndarray:
    """Matrix [new, old]; pixels beyond the edge are those at it."""
    low = np.floor(places)
    share, eye = (places - low)[:, None], np.eye(old)
    before, after = (eye[np.clip(low + k, 0, old - 1).astype(int)] for k in (0, 1))
    return (1 - share) * before + share * after


class Upsample(OpRun):
    """Resize of opset 9."""

    def _run(self, x, scales=None, mode=None):
        return Resize._run(self, x, scales, mode=mode)


class QuantizeLinear(OpRun):
    """round(x / scale) + zero point, saturated, of integers; onnx has none before opset 19."""

    def _run(self, x, scale, zero=None, axis=None, block_size=None, **_):
        zero = np.zeros((), np.uint8) if zero is None else zero
        if zero.dtype.kind not in "iu":
            raise NotImplementedError(f"QuantizeLinear to {zero.dtype}")
        steps = np.rint(x / _spread(scale, x, axis, block_size)) + _spread(zero, x, axis, block_size)
        limits = np.iinfo(zero.dtype)
        return (np.clip(steps, limits.min, limits.max).astype(zero.dtype),)


class DequantizeLinear(OpRun):
    """(code - zero point) * scale."""

    def _run(self, x, scale, zero=None, axis=None, block_size=None, **_):
        if x.dtype.kind not in "iu":
            raise NotImplementedError(f"DequantizeLinear of {x.dtype}")
        steps = x.astype(np.int64)
        if zero is not None:
            steps = steps - _spread(zero.astype(np.int64), x, axis, block_size)
        return (steps.astype(np.float32) * _spread(scale, x, axis, block_size),)


def _spread(values: np.ndarray, x: np.ndarray, axis: int | None, block: int | None) -> np.ndarray:
    """A scale or zero point for each element of x, as far as numpy does not broadcast it."""
    axis = 1 if axis is None else axis
    if block:
        return np.repeat(values, block, axis).take(range(x.shape[axis]), axis)
    if values.size == 1:
        return values.reshape(())
    return values.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])


class LRN(OpRun):
    """x / (bias + alpha / size * sum)^beta, of squares of channels around; onnx takes samples for them."""

    def _run(self, x, alpha=None, beta=None, bias=None, size=None):
        around = [(0, 0)] * x.ndim
        around[1] = ((size - 1) // 2, size // 2)
        sums = sliding_window_view(np.pad(x**2, around), size, axis=1).sum(-1)
        return ((x / (bias + alpha / size * sums) ** beta).astype(x.dtype),)


class RoiAlign(op_roi_align.RoiAlign):
    """Before opset 16 nothing says where pixels lie, and regions are not shifted; onnx shifts them."""

    def _run(self, x, rois, batch, coordinate_transformation_mode=None, **attributes):
        shifted = self.run_params["opsets"].get("", 16) >= 16
        where = coordinate_transformation_mode if shifted else "output_half_pixel"
        return super()._run(x, rois, batch, coordinate_transformation_mode=where, **attributes)


#: For ReferenceEvaluator(new_ops=...).
OPERATORS: list[type[OpRun]] = [
    *(Conv, ConvTranspose, MaxPool, AveragePool, GlobalMaxPool, BatchNormalization, LpNormalization),
    *(Softmax, LogSoftmax, Hardmax, Resize, Upsample, QuantizeLinear, DequantizeLinear),
    *(LRN, RoiAlign, Loop, Scan, LSTM, GRU, RNN, GatherElements),
]
