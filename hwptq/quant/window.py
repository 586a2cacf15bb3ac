"""Sliding windows over images in NHWC: shapes, padding and views."""

from __future__ import annotations

from typing import Any

import numpy as np


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


def rows_read(
    rows: range, height: int, size: int, stride: int, dilation: int, top: int
) -> tuple[range, int, int]:
    """The rows of an image of `height` that windows of `size` rows see for some rows of the result, and the
    padding above and below these: `top` is that of the whole image.

    Of 3 rows a window and padding 1, rows 0 and 1 of the result see rows 0 … 2, below 1 of padding.
    """
    first = rows.start * stride - top
    behind = (rows.stop - 1) * stride + dilation * (size - 1) + 1 - top
    seen = range(max(first, 0), min(behind, height))
    return seen, seen.start - first, behind - seen.stop


def pad_image(x: np.ndarray, padding: tuple[int, int, int, int], value: Any) -> np.ndarray:
    """x [N,H,W,C] with `value` around it; x itself where nothing is added.

    np.pad takes several times as long for images of a few kB.
    """
    top, left, bottom, right = padding
    if not any(padding):
        return x
    n, height, width, channels = x.shape
    out = np.full((n, top + height + bottom, left + width + right, channels), value, x.dtype)
    out[:, top : top + height, left : left + width] = x
    return out


def ceil_padding(padding: Any, size: Any, strides: Any, dilation: Any, out_shape: Any, shape: Any) -> Any:
    """Padding grown at the bottom and right so that every window of a ceil-mode pooling lies inside."""
    need = [(out_shape[i] - 1) * strides[i] + dilation[i] * (size[i] - 1) + 1 for i in (0, 1)]
    top, left, bottom, right = padding
    return (top, left, max(bottom, need[0] - shape[0] - top), max(right, need[1] - shape[1] - left))


def pooled(op: Any, x: np.ndarray, dilation: Any, fill: Any) -> np.ndarray:
    """The windows [N,OH,OW,C,KH,KW] of a pooling operator over x [N,H,W,C], `fill` beyond the image.

    `op` has the fields pool_size, strides, padding and out_shape of MaxPool and AvgPool.
    """
    padding = ceil_padding(op.padding, op.pool_size, op.strides, dilation, op.out_shape, x.shape[1:3])
    return windows(pad_image(x, padding, fill), op.pool_size, op.strides, dilation, op.out_shape)
