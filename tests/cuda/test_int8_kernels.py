"""Integer operators as CUDA kernels, run on this machine: threads become loops.

What needs tensor cores is not run, but what is made ready for it is: numpy multiplies the padded image
and the packed constants as the tensor cores would.
"""

from __future__ import annotations

from random import Random
from typing import Any

import elementwise_cases
import kernel_cases
import numpy as np
import pytest
from kernel_cases import Case, type_of
from on_processor import run

from hwptq.kernels.cuda.element import elementwise_kernel
from hwptq.kernels.cuda.operand import item_bytes
from hwptq.kernels.cuda.packing import permutation
from hwptq.kernels.cuda.tiling import COLUMNS, STORE, round_up
from hwptq.kernels.select import selector_of
from hwptq.operators.conv2d import Conv2d
from hwptq.operators.dense import DenseFloat
from hwptq.quant import fixed_point
from hwptq.quant.integer_sums import convolution_sum, exact_matmul
from hwptq.targets import load_target
from hwptq.tir.kernel import Step

TARGET = load_target("nvidia-hopper-fp8")
pytestmark = pytest.mark.usefixtures("intrinsics")


def check(case: Case) -> None:
    arrays = [*case.activations, *case.constants]
    expected = case.expected()
    func = elementwise_kernel(case.op, [type_of(a) for a in arrays], type_of(expected), {})
    found = run(func, arrays, type_of(expected))
    np.testing.assert_array_equal(found, expected, err_msg=str(case))


@pytest.mark.parametrize("kind", elementwise_cases.KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("seed", range(3))
def test_operators_without_weights(kind: Any, seed: int) -> None:
    check(kind(Random(seed)))


@pytest.mark.parametrize("seed", range(3))
def test_layers_one_element_a_thread(seed: int) -> None:
    random = Random(seed)
    check(kernel_cases.random_case(random))
    check(kernel_cases.depthwise_case(random, (5, 9)))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concatenation(axis: int) -> None:
    parts = []
    for i, extent in enumerate((3, 1, 4)):
        shape = [2, 3, 4]
        shape[axis] = extent
        parts.append(kernel_cases.int8(Random(i), *shape))
    expected = np.concatenate(parts, axis)
    step = selector_of(TARGET).concatenation([type_of(p) for p in parts], axis, type_of(expected))
    assert np.array_equal(run(step.func, parts, type_of(expected)), expected)


def product(case: Case, steps: tuple[Step, ...]) -> np.ndarray:
    """What the tensor cores make of the constants of the last step, in numpy."""
    *before, last = steps
    x = case.activations[0]
    for step in before:
        x = run(step.func, [x], step.out)
    *_, packed, scale, bias = last.args
    assert isinstance(packed, np.ndarray)
    assert isinstance(scale, np.ndarray)
    outputs, rows = case.constants[0].shape[0], round_up(case.constants[0].shape[0], COLUMNS)
    kernel = case.constants[0].shape[1:-1] if isinstance(case.op, Conv2d) else (1, 1)
    channels = packed.shape[1] // (kernel[0] * kernel[1])
    w = np.empty_like(packed)
    w[permutation(rows, STORE // item_bytes(last.out.dtype))] = packed
    w = w.reshape(rows, *kernel, channels)[:outputs]
    x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, channels - x.shape[-1])])
    if isinstance(case.op, Conv2d):
        # a border that nobody added is filled with zeros by TMA
        added = tuple(0 if any("pad_image" in s.name for s in before) else p for p in case.op.padding)
        op = Conv2d(case.op.strides, added, case.op.dilation, 1, 0, 0, -128, 127)
        acc = convolution_sum(op, x, w, bias[:outputs])
    else:
        acc = exact_matmul(x, w.reshape(outputs, channels).T) + bias[:outputs]
    if isinstance(case.op, DenseFloat):
        return acc.astype(np.float32) * scale[:outputs]
    multiplier, shift = scale[:outputs], scale[rows : rows + outputs]
    return fixed_point.requantize(
        acc, multiplier, shift, case.op.out_zero_point, case.op.lo, case.op.hi
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_what_the_tensor_cores_get(seed: int) -> None:
    random = Random(100 + seed)
    cases = [
        kernel_cases.conv_case(random, random.choice((3, 16, 20, 40)), random.choice((5, 64, 70)), largest=6),
        kernel_cases.dense_case(random),
        kernel_cases.dense_float_case(random),
    ]
    for case in cases:
        if case.activations[0].ndim < 2:
            continue
        expected = case.expected()
        steps = case.steps(TARGET)
        assert "wgmma" in steps[-1].name
        np.testing.assert_array_equal(product(case, steps), expected, err_msg=str(case))
