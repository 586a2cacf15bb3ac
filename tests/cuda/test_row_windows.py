"""Convolutions of few channels: the pixels of a kernel row become channels of one part of the sum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from on_processor import run

from hwptq.formats import fp8
from hwptq.kernels.cuda.float_products import product_steps
from hwptq.kernels.cuda.pack import row_windows
from hwptq.kernels.cuda.packing import permutation
from hwptq.operators.conv2d import FloatConv2d
from hwptq.quant.float_sums import parts_of_window
from hwptq.targets import load_target
from hwptq.tir.kernel import TensorType

KERNEL = load_target("nvidia-hopper-fp8").kernels["wgmma"]
MODEL = (32, 13, 128)


@pytest.mark.parametrize(
    ("shape", "strides", "padding", "dilation", "parts"),
    [
        ((16, 7, 7, 3), (2, 2), (3, 3, 3, 3), (1, 1), (7, 21)),
        ((8, 3, 3, 1), (1, 2), (0, 1, 2, 0), (2, 3), (3, 3)),
        ((8, 3, 3, 10), (1, 1), (1, 1, 1, 1), (1, 1), (3, 30)),
        ((8, 1, 5, 4), (1, 1), (0, 2, 0, 2), (1, 1), (1, 20)),
        ((8, 3, 3, 11), (1, 1), (1, 1, 1, 1), (1, 1), (9, 11)),
        ((8, 5, 1, 20), (1, 1), (2, 0, 2, 0), (1, 1), (5, 20)),
    ],
)
def test_the_product_of_rows_is_that_of_windows(shape, strides, padding, dilation, parts) -> None:
    """What the steps make of x, with the weights as they are packed, convolves to what the operator is."""
    assert parts_of_window(shape, MODEL[0]) == parts
    o, kh, kw, depth = shape
    rng = np.random.default_rng(sum(shape))
    x = fp8.as_float8(rng.integers(0, 0x60, (2, 13, 17, depth), np.uint8))
    w = fp8.as_float8(rng.integers(0x20, 0x60, shape, np.uint8) ^ rng.integers(0, 2, shape, np.uint8) << 7)
    scale, bias = rng.uniform(0.01, 0.02, (2, o)).astype(np.float32)
    op = FloatConv2d(strides, padding, dilation, 1, -np.inf, np.inf, "float32", MODEL)
    expected = op.reference(x, w, scale, bias)
    out = TensorType(expected.shape, "float32")
    *before, last = product_steps(op, [TensorType(x.shape, fp8.DTYPE)], [w, scale, bias], out, KERNEL)
    packed = last.args[3]
    rows = np.empty_like(packed)
    rows[permutation(len(packed), 4)] = packed
    joined = parts[0] == kh and kw > 1
    assert any("row_windows" in step.name for step in before) == joined
    codes = fp8.as_codes(x)
    if joined:  # the kernel in int8, which this machine computes too
        wide = TensorType(before[0].out.shape, "int8")
        func = row_windows(TensorType(x.shape, "int8"), op, wide, kw, {})
        codes = run(func, [codes.view(np.int8)], wide).view(np.uint8)
    window = (kh, 1) if joined else (kh, kw)
    product = op
    if joined:
        joined_padding = (padding[0], 0, padding[2], 0)
        product = replace(
            op, strides=(strides[0], 1), dilation=(dilation[0], 1), padding=joined_padding
        )  # fmt: skip
    channels = rows.shape[1] // (window[0] * window[1])
    weights = rows[:o].reshape(o, *window, channels)
    widened = np.pad(codes, [(0, 0)] * 3 + [(0, channels - codes.shape[-1])])
    found = product.reference(fp8.as_float8(widened), weights, scale, bias)
    assert np.array_equal(found.view(np.uint32), expected.view(np.uint32))
