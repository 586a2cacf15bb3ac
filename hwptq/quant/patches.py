"""Means of what the windows of a convolution see: enough to know the mean of its output."""

from __future__ import annotations

from typing import Any

import numpy as np

from .window import conv_output_shape


def patch_sums(
    x: np.ndarray, size: Any, strides: Any, padding: Any, dilation: Any, fill: int = 0
) -> tuple[np.ndarray, int]:
    """(sum over all windows of x [N,H,W,C], float64 [KH,KW,C]; number of windows). Padding holds `fill`."""
    top, left, bottom, right = padding
    oh, ow = conv_output_shape(x.shape[1:3], size, strides, padding, dilation)
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    sums = np.empty((*size, x.shape[3]))
    for ky in range(size[0]):
        start = ky * dilation[0]
        rows = padded[:, start : start + (oh - 1) * strides[0] + 1 : strides[0]]
        columns = rows.sum(axis=(0, 1), dtype=np.float64 if x.dtype.kind == "f" else np.int64)
        for kx in range(size[1]):
            start = kx * dilation[1]
            sums[ky, kx] = columns[start : start + (ow - 1) * strides[1] + 1 : strides[1]].sum(axis=0)
    return sums, x.shape[0] * oh * ow


def conv_of_patch(weight: np.ndarray, patch: np.ndarray, groups: int) -> np.ndarray:
    """What a convolution of weight [O,KH,KW,I/groups] makes of one patch [KH,KW,I]: float64 [O]."""
    o, kh, kw, i = weight.shape
    w = weight.reshape(groups, o // groups, kh, kw, i).astype(np.float64)
    return np.einsum("gohwi,hwgi->go", w, patch.reshape(kh, kw, groups, i)).reshape(o)
