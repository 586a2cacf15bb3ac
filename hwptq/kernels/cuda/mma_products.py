"""The steps of convolutions and dense layers, in e4m3 or in int8, by warps that multiply on their own."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from hwptq.formats import fp8
from hwptq.kernels.layer import Layer
from hwptq.kernels.template import Template
from hwptq.operators.float_operator import FloatProducts
from hwptq.operators.matmul import FloatMatMul
from hwptq.targets.templates.mma import MmaKernel
from hwptq.tir.builder import TEMPLATE
from hwptq.tir.kernel import PREVIOUS, Argument, Step, TensorType

from .mma import WarpTiling, mma_kernel
from .operand import E4M3, INT8
from .product_input import prepared
from .tensor_cores import in_integers, summed_by_step
from .tiling import Problem


class Mma(Template[MmaKernel]):
    """Layers in floats or int8."""

    table = MmaKernel

    def takes(self, layer: Layer) -> bool:
        by_step = summed_by_step(layer.op) and not isinstance(layer.op, FloatMatMul)
        return by_step or in_integers(layer)

    def steps(self, layer: Layer) -> tuple[Step, ...]:
        return mma_product_steps(layer.op, layer.activations, layer.constants, layer.out, self.kernel)


def mma_product_steps(
    op: Any,
    activations: Sequence[TensorType],
    constants: Sequence[np.ndarray],
    out: TensorType,
    kernel: MmaKernel,
) -> tuple[Step, ...]:
    """The steps of a layer that is no grouped convolution: fill the channels of x, then multiply."""
    weight, *others = constants
    steps, x, op, weight = prepared(op, activations[0], weight, out, kernel.channel_alignment)
    source: Argument = PREVIOUS if steps else 0
    t = WarpTiling(_problem(op, x, weight, out), kernel.columns, kernel.warps)
    packed = packed_weights(weight.reshape(len(weight), t.problem.taps, -1), t)
    residual = activations[1:]
    tensors = [x, *residual, *(TensorType(a.shape, str(a.dtype)) for a in (packed, *others))]
    func = mma_kernel(op, t, tensors, out, getattr(op, "in_zero_point", 0), {TEMPLATE: "mma"})
    args: tuple[Argument, ...] = (source, *range(1, 1 + len(residual)), packed, *others)
    return (*steps, Step(func, args, out, f"{op.kind}_mma"))


def _problem(op: Any, x: TensorType, w: np.ndarray, out: TensorType) -> Problem:
    step, _, promote = op.accumulator if isinstance(op, FloatProducts) else (INT8.step, 0, 0)
    operand = E4M3 if x.dtype == fp8.DTYPE else INT8
    if step != operand.step:
        raise ValueError(f"mma sums {operand.step} products at once, not {step}")
    if w.ndim == 2:
        rows = prod(x.shape[:-1])
        return Problem(
            (1, 1, rows, x.shape[-1]), out.shape[-1], out_shape=(1, rows), promote=promote, operand=operand
        )
    n, h, width, c = x.shape
    return Problem(
        (n, h, width, c), out.shape[-1], (w.shape[1], w.shape[2]), op.strides, (op.padding[0], op.padding[1]),
        op.dilation, (out.shape[1], out.shape[2]), promote=promote, operand=operand,
    )  # fmt: skip


def packed_weights(w: np.ndarray, t: WarpTiling) -> np.ndarray:
    """w [O,taps,C], a byte each -> [weight_rows, weight_depth], filled with zeros."""
    outputs, taps, channels = w.shape
    filled = np.zeros((t.weight_rows, taps, t.weight_depth // taps), np.uint8)
    filled[:outputs, :, :channels] = w.view(np.uint8)
    return filled.reshape(t.weight_rows, -1).view(w.dtype)
