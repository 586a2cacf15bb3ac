"""The steps of convolutions and dense layers in int8 on tensor cores, whose sums are exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf, prod
from typing import Any

import numpy as np

from hwptq.kernels.joins import Joined
from hwptq.operators.conv2d import Conv2d, Conv2dToFloat
from hwptq.operators.dense import Dense, DenseFloat
from hwptq.operators.rows import RowRescale
from hwptq.quant.fixed_point import STEPS
from hwptq.targets.templates.wgmma import WgmmaKernel
from hwptq.tir.builder import TEMPLATE
from hwptq.tir.kernel import PREVIOUS, Argument, Step, TensorType

from .float_products import NO_RESIDUAL, wgmma_step
from .operand import INT8, item_bytes
from .pack import pad_image, padded_image
from .packing import filled, packed_weights
from .product_input import padding_step
from .tiling import COLUMNS, STORE, Problem, Tiling, choose, round_up
from .wgmma_store import Epilogue

_MOST_ENTRIES = 2**12


def int8_product_steps(
    op: Any,
    activations: Sequence[TensorType],
    constants: Sequence[np.ndarray],
    out: TensorType,
    kernel: WgmmaKernel,
) -> tuple[Step, ...]:
    """The steps of a layer that is no grouped convolution (IntegerLayer, LayerToFloat).

    Pad the image where its zero point is not 0, else only the channels where TMA asks for it; multiply.
    """
    weight, bias, *scales = constants
    steps, x, op = _prepared(op, activations[0], kernel.channel_alignment)
    problem = _conv2d(op, x, weight, out) if weight.ndim == 4 else _dense(x, out)
    tiling = choose(problem, kernel)
    packed = packed_weights(weight.reshape(problem.outputs, problem.taps, -1), tiling)
    scale = np.concatenate([filled(s, tiling) for s in scales])
    source: Argument = PREVIOUS if steps else 0
    args = (source, *NO_RESIDUAL, packed, scale, filled(bias, tiling))
    return (*steps, wgmma_step(op, tiling, _epilogue(op, out), x, args, out))


def dense_beside(
    ops: Sequence[Dense], x: TensorType, constants: Sequence[Sequence[np.ndarray]], kernel: WgmmaKernel
) -> Joined | None:
    """Dense layers of one tensor whose results lie side by side, as one; None where they are too unlike."""
    first = ops[0]
    outputs = [w.shape[0] for w, *_ in constants]
    alike = all(replace(op, out_zero_point=first.out_zero_point) == first for op in ops)
    if not alike or not _is_plain(first, x, kernel) or any(n % COLUMNS for n in outputs):
        return None
    out = TensorType((*x.shape[:-1], sum(outputs)), first.out)
    weight, bias, multiplier, shift = (np.concatenate(c) for c in zip(*constants, strict=True))
    zeros = np.concatenate(
        [np.full(n, op.out_zero_point, np.int32) for op, n in zip(ops, outputs, strict=True)]
    )
    tiling = choose(_dense(x, out), kernel)
    scale = np.concatenate([filled(s, tiling) for s in (multiplier, shift, zeros)])
    epilogue = replace(_epilogue(first, out), zero_points=True)
    return _joined(first, tiling, epilogue, x, (*NO_RESIDUAL, weight, scale, bias), out)


def dense_with_table(
    op: Dense, x: TensorType, constants: Sequence[np.ndarray], table: np.ndarray, kernel: WgmmaKernel
) -> Joined | None:
    """A dense layer whose results are looked up in a table of bytes at once; None where that can't be."""
    weight, bias, multiplier, shift = constants
    fits = (op.out, table.dtype) == ("int16", np.int8) and len(table) <= _MOST_ENTRIES
    if not fits or not _is_plain(op, x, kernel) or len(weight) % STORE or len(table) % 16:
        return None
    out = TensorType((*x.shape[:-1], len(weight)), "int8")
    tiling = choose(replace(_dense(x, out), table=len(table)), kernel)
    scale = np.concatenate([filled(s, tiling) for s in (multiplier, shift)])
    epilogue = replace(_epilogue(op, out), table=len(table))
    return _joined(op, tiling, epilogue, x, (table, NO_RESIDUAL[1], weight, scale, bias), out)


def dense_rescaled(
    op: DenseFloat, by: RowRescale, x: TensorType, constants: Sequence[np.ndarray], kernel: WgmmaKernel
) -> Joined | None:
    """A dense layer of rows with a scale each, whose sums become real numbers; None where that can't be."""
    weight, bias, scale, offset = constants
    plain = (op.weight_bits, op.activation_bits, op.acc_shift) == (8, 8, 0) and x.dtype == "int8"
    if not plain or x.shape[-1] % kernel.channel_alignment or len(weight) % STORE:
        return None
    out = TensorType((*x.shape[:-1], len(weight)), "float32")
    tiling = choose(_dense(x, out), kernel)
    scales = np.concatenate([filled(s, tiling) for s in (scale, offset)])
    step = wgmma_step(op, tiling, Epilogue(out.dtype, by.lo, by.hi, rescaled=True), x, (), out)
    packed = packed_weights(weight.reshape(len(weight), 1, -1), tiling)
    return Joined(step.func, (NO_RESIDUAL[1], packed, scales, filled(bias, tiling)), [out], step.name)


def _is_plain(op: Dense, x: TensorType, kernel: WgmmaKernel) -> bool:
    plain = (op.weight_bits, op.activation_bits, op.acc_shift, op.rounding) == (8, 8, 0, STEPS)
    return plain and x.dtype == "int8" and x.shape[-1] % kernel.channel_alignment == 0


def _joined(
    op: Dense, tiling: Tiling, epilogue: Epilogue, x: TensorType, given: Sequence[np.ndarray], out: TensorType
) -> Joined:
    beside, factor, weight, scale, bias = given
    packed = packed_weights(weight.reshape(len(weight), 1, -1), tiling)
    step = wgmma_step(op, tiling, epilogue, x, (), out)
    return Joined(step.func, (beside, factor, packed, scale, filled(bias, tiling)), [out], step.name)


def _epilogue(op: Any, out: TensorType) -> Epilogue:
    lo, hi = getattr(op, "lo", -inf), getattr(op, "hi", inf)
    return Epilogue(out.dtype, lo, hi, zero_point=getattr(op, "out_zero_point", 0))


def _prepared(op: Any, x: TensorType, alignment: int) -> tuple[list[Step], TensorType, Any]:
    """The steps before the product, what they make of x, and the operator on that."""
    channels = round_up(x.shape[-1], alignment)
    if isinstance(op, Conv2d | Conv2dToFloat) and any(op.padding) and op.in_zero_point:
        out = padded_image(x, op.padding, channels)
        func = pad_image(x, op.padding, op.in_zero_point, channels, {TEMPLATE: "pad_image"})
        return [Step(func, (0,), out, "pad_image")], out, replace(op, padding=(0, 0, 0, 0))
    if channels == x.shape[-1]:
        return [], x, op
    out = TensorType((*x.shape[:-1], channels), x.dtype)
    return [padding_step(x, channels, out)], out, op


def _conv2d(op: Conv2d | Conv2dToFloat, x: TensorType, w: np.ndarray, out: TensorType) -> Problem:
    n, h, width, c = x.shape
    return Problem(
        (n, h, width, c), out.shape[-1], (w.shape[1], w.shape[2]), op.strides, (op.padding[0], op.padding[1]),
        op.dilation, (out.shape[1], out.shape[2]), promote=0, operand=INT8, out_bytes=item_bytes(out.dtype),
    )  # fmt: skip


def _dense(x: TensorType, out: TensorType) -> Problem:
    rows = prod(x.shape[:-1])
    return Problem(
        (1, 1, rows, x.shape[-1]), out.shape[-1], out_shape=(1, rows), promote=0, operand=INT8,
        out_bytes=item_bytes(out.dtype),
    )  # fmt: skip
