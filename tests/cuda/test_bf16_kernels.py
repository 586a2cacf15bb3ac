"""Operators with bfloat16 at one end as CUDA kernels, run on this machine: threads become loops.

What needs tensor cores is not run, but what is made ready for it is: the reference multiplies the rows of
windows and the packed weights as the tensor cores would.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import pytest
from kernel_cases import type_of
from on_processor import run

from hwptq.formats import bf16
from hwptq.kernels.cuda.packing import permutation
from hwptq.kernels.layer import Layer
from hwptq.kernels.select import select
from hwptq.operators.add import FloatAdd
from hwptq.operators.avg_pool import FloatAvgPool
from hwptq.operators.clamp import Clamp
from hwptq.operators.conv2d import FloatConv2d
from hwptq.operators.dense import FloatDense
from hwptq.operators.dequantize import FloatDequantize
from hwptq.operators.lookup import Lookup
from hwptq.operators.max_pool import MaxPool
from hwptq.operators.mul import FloatMul
from hwptq.operators.pad import Pad
from hwptq.operators.quantize import FloatQuantize
from hwptq.operators.resize import Resize
from hwptq.targets import load_target
from hwptq.tir.kernel import TensorType

pytestmark = pytest.mark.usefixtures("intrinsics")
TARGET = load_target("nvidia-hopper-fp8")
BF16, IN_ORDER, IN_STEPS = bf16.DTYPE, (1, 23, 0), (16, 25, 0)


class Values:
    """Random tensors."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def of(self, dtype: str, *shape: int, spread: int = 0) -> np.ndarray:
        """Codes of bfloat16, times powers of two of `spread` exponents, or of int8."""
        if dtype == "int8":
            return self.rng.integers(-128, 128, shape).astype(np.int8)
        x = self.rng.standard_normal(shape, np.float32)
        return bf16.encode(np.ldexp(x, self.rng.integers(-spread // 2, spread // 2 + 1, shape)))

    def reals(self, count: int) -> np.ndarray:
        return self.rng.uniform(0.3, 3, count).astype(np.float32)


def check(op: Any, *tensors: np.ndarray, constants: tuple[np.ndarray, ...] = ()) -> None:
    """The kernel of one thread an element gives the bits of the reference."""
    expected = np.ascontiguousarray(op.reference(*tensors, *constants))
    layer = Layer(op, tuple(map(type_of, tensors)), constants, type_of(expected))
    (step,) = select(layer, TARGET)
    found = run(step.func, [*tensors, *constants], type_of(expected))
    bits = f"uint{8 * expected.itemsize}"
    assert np.array_equal(found.view(bits), expected.view(bits)), op


@pytest.mark.parametrize(
    ("spread", "out"), [(0, BF16), (0, "int8"), (0, "float32"), (240, BF16), (240, "int8")]
)
@pytest.mark.parametrize(
    ("channels", "outputs", "groups", "kernel", "window"),
    [
        (5, 6, 1, (3, 2), ((1, 2), (0, 1, 2, 0), (1, 1))),
        (16, 9, 1, (1, 1), ((2, 1), (0, 0, 0, 0), (1, 1))),
        (6, 6, 6, (3, 3), ((1, 1), (1, 1, 1, 1), (2, 1))),
        (4, 8, 2, (2, 3), ((1, 1), (1, 0, 0, 2), (1, 1))),
    ],
)
def test_convolutions_in_order(
    channels: int, outputs: int, groups: int, kernel: Any, window: Any, spread: int, out: str
) -> None:
    """With exponents that differ by 240, products leave float32 at both ends.

    Which NaN a float32 holds then is not defined.
    """
    v = Values(channels)
    x = v.of(BF16, 2, 7, 6, channels, spread=spread)
    w = v.of(BF16, outputs, *kernel, channels // groups, spread=spread)
    real = (v.reals(outputs), v.reals(outputs))
    op = FloatConv2d(*window, groups, -inf, 90.0, out, IN_ORDER, out_zero_point=7 if out == "int8" else 0)
    check(op, x, constants=(w, *real))
    shape = op.reference(x, w, *real).shape
    for dtype, zero in ((BF16, 0), ("int8", -9)):
        joined = replace(op, residual=0.7, residual_zero_point=zero)
        check(joined, x, v.of(dtype, *shape), constants=(w, *real))


@pytest.mark.parametrize("spread", [0, 240])
def test_dense_layers_in_order(spread: int) -> None:
    v = Values(1)
    for rows, depth, outputs in (((1,), 40, 10), ((3, 5), 33, 7)):
        x, w = v.of(BF16, *rows, depth, spread=spread), v.of(BF16, outputs, depth, spread=spread)
        op = FloatDense(0.0, inf, BF16, IN_ORDER)
        check(op, x, constants=(w, v.reals(outputs), v.reals(outputs)))


@pytest.mark.parametrize("out", [BF16, "int8"])
def test_operators_without_weights(out: str) -> None:
    v, shape, zero = Values(2), (2, 5, 7, 3), 5 if out == "int8" else 0
    for a, b in ((BF16, BF16), (BF16, "int8"), ("int8", BF16)):
        x, y = v.of(a, *shape), v.of(b, shape[-1])
        zeros = (3 if a == "int8" else 0, -9 if b == "int8" else 0, out, zero)
        check(FloatAdd(0.3, -1.7, -inf, 90.0, *zeros), x, y)
        check(FloatMul(30.0, 0.0, inf, *zeros), x, y)
    x = v.of(BF16, *shape, spread=240)
    check(Lookup(), x, constants=(v.of(out, 1 << 16),))
    mean = FloatAvgPool((2, 3), (2, 2), (0, 1, 0, 1), (2, 4), -inf, inf, 0, out, zero)
    check(mean, v.of(BF16, *shape), constants=(v.reals(8),))


def test_values_that_stay_bfloat16() -> None:
    v, shape = Values(3), (2, 5, 7, 3)
    x = v.of(BF16, *shape, spread=240)
    x.reshape(-1)[:4] = bf16.encode(np.array([np.inf, -np.inf, np.nan, -0.0], np.float32))
    check(MaxPool((3, 2), (2, 2), (1, 1, 1, 0), (1, 1), (3, 4)), np.nan_to_num(x))
    check(Pad((0, 1, 0, 2), (0, 0, 3, 1), 0x3F80), x)
    tables = (np.int32([2, 0, 0, 1]), np.int32([4, 1, 1]))
    check(Resize(), x, constants=tables)
    check(Clamp(), x, constants=(bf16.encode(-v.reals(3)), bf16.encode(v.reals(3))))
    check(Lookup(), v.of("int8", *shape), constants=(v.of(BF16, 256),))


def test_to_and_from_real_values() -> None:
    bits = np.random.default_rng(4).integers(0, 1 << 32, 1 << 12, dtype=np.uint32)
    ties = (bits & np.uint32(0xFFFF0000)) | np.uint32(0x8000)
    for real in (bits.view(np.float32), ties.view(np.float32)):
        check(FloatQuantize(1.0, BF16), real[np.isfinite(real)])
    check(FloatDequantize(1.0), Values(5).of(BF16, 1 << 10, spread=240))


@pytest.mark.parametrize(
    ("shape", "strides", "padding", "dilation", "out"),
    [
        ((16, 7, 7, 3), (2, 2), (3, 3, 3, 3), (1, 1), "float32"),
        ((70, 3, 3, 3), (1, 2), (0, 1, 2, 0), (2, 3), BF16),
        ((8, 3, 3, 20), (1, 1), (1, 1, 1, 1), (1, 1), BF16),
        ((64, 1, 1, 72), (1, 1), (0, 0, 0, 0), (1, 1), "float32"),
    ],
)
def test_what_the_tensor_cores_get(shape: Any, strides: Any, padding: Any, dilation: Any, out: str) -> None:
    o, kh, kw, depth = shape
    v = Values(sum(shape))
    x, w, scale, bias = v.of(BF16, 2, 13, 17, depth), v.of(BF16, *shape), v.reals(o), v.reals(o)
    op = FloatConv2d(strides, padding, dilation, 1, -inf, inf, out, IN_STEPS)
    expected = op.reference(x, w, scale, bias)
    *before, last = select(Layer(op, (type_of(x),), (w, scale, bias), type_of(expected)), TARGET)
    assert "wgmma" in last.name
    packed = last.args[3]
    assert isinstance(packed, np.ndarray)
    rows = np.empty_like(packed)
    rows[permutation(len(packed), 16 // expected.itemsize)] = packed
    made = x
    for step in before:
        made = run(step.func, [made], TensorType(step.out.shape, step.out.dtype))
    joined = any("row_windows" in step.name for step in before)
    assert joined == (kw > 1 and kw * depth <= 16)
    if joined:
        top, _, bottom, _ = padding
        op = replace(op, strides=(strides[0], 1), dilation=(dilation[0], 1), padding=(top, 0, bottom, 0))
    window = (kh, 1) if joined else (kh, kw)
    channels = rows.shape[1] // (window[0] * window[1])
    weights = rows[:o].reshape(o, *window, channels)
    widened = np.zeros((*made.shape[:3], channels), x.dtype)
    widened[..., : made.shape[3]] = made
    found = op.reference(widened, weights, scale, bias)
    bits = f"uint{8 * expected.itemsize}"
    assert np.array_equal(np.ascontiguousarray(found).view(bits), np.ascontiguousarray(expected).view(bits))
