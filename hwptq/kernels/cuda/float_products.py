"""The steps of convolutions, dense layers and batched products of e4m3 or bfloat16 on tensor cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from hwptq.formats import fp8
from hwptq.operators.conv2d import FloatConv2d
from hwptq.operators.dense import FloatDense
from hwptq.operators.matmul import FloatMatMul
from hwptq.targets.templates.wgmma import WgmmaKernel
from hwptq.tir.builder import TEMPLATE
from hwptq.tir.kernel import PREVIOUS, Argument, Step, TensorType

from .operand import FLOATS, item_bytes
from .pack import pack_product
from .packing import filled, packed_weights
from .product_input import padding_step, prepared
from .tiling import Problem, Tiling, choose, round_up
from .wgmma import wgmma_kernel
from .wgmma_store import Epilogue

#: A residual that nobody reads, and its factor.
NO_RESIDUAL = (fp8.as_float8(np.zeros((1, 1), np.uint8)), np.zeros(1, np.float32))


def product_steps(
    op: FloatConv2d | FloatDense | FloatMatMul,
    activations: Sequence[TensorType],
    constants: Sequence[np.ndarray],
    out: TensorType,
    kernel: WgmmaKernel,
) -> tuple[Step, ...]:
    """Pad the channels where TMA asks for it, then multiply."""
    if isinstance(op, FloatMatMul):
        return _matmul(op, activations, out, kernel)
    steps, x, layer, w = prepared(op, activations[0], constants[0], out, kernel.channel_alignment)
    problem = _conv2d(layer, x, w, out) if isinstance(layer, FloatConv2d) else _dense(layer, x, out)
    tiling = choose(problem, kernel)
    weights = w.reshape(problem.outputs, problem.taps, -1)
    packed = [packed_weights(weights, tiling), *(filled(c, tiling) for c in constants[1:])]
    source: Argument = PREVIOUS if steps else 0
    residual = (1, np.array([op.residual], np.float32)) if op.residual else NO_RESIDUAL
    epilogue = Epilogue(op.out, op.lo, op.hi, zero_point=op.out_zero_point)
    if op.residual:
        epilogue = replace(
            epilogue, residual=True, residual_dtype=activations[1].dtype,
            residual_zero_point=op.residual_zero_point,
        )  # fmt: skip
    return (*steps, wgmma_step(op, tiling, epilogue, x, (source, *residual, *packed), out))


def wgmma_step(
    op: Any, tiling: Tiling, epilogue: Epilogue, x: TensorType, args: tuple[Argument, ...], out: TensorType
) -> Step:
    """The product itself; `args` as wgmma_kernel takes them."""
    func = wgmma_kernel(tiling, epilogue, x.shape, out.shape)
    return Step(func, args, out, f"{op.kind}_wgmma")


def _model(op: Any, x: TensorType, images: tuple[int, int, int, int], outputs: int) -> dict[str, Any]:
    """Fields of a Problem that every operator has; channels as TMA sees them."""
    (step, _, promote), operand = op.accumulator, FLOATS[x.dtype]
    if step != operand.step:
        raise ValueError(f"wgmma sums {operand.step} products of {x.dtype} at once, not {step}")
    out_bytes = item_bytes(op.out)
    return {
        "images": images, "outputs": outputs, "promote": promote, "operand": operand, "out_bytes": out_bytes
    }  # fmt: skip


def _conv2d(op: FloatConv2d, x: TensorType, w: np.ndarray, out: TensorType) -> Problem:
    n, h, width, c = x.shape
    return Problem(
        **_model(op, x, (n, h, width, c), out.shape[-1]),
        kernel=(w.shape[1], w.shape[2]), strides=op.strides, padding=(op.padding[0], op.padding[1]),
        dilation=op.dilation, out_shape=(out.shape[1], out.shape[2]),
    )  # fmt: skip


def _dense(op: FloatDense, x: TensorType, out: TensorType) -> Problem:
    rows = prod(x.shape[:-1])
    return Problem(**_model(op, x, (1, 1, rows, x.shape[-1]), out.shape[-1]), out_shape=(1, rows))


def _matmul(
    op: FloatMatMul, activations: Sequence[TensorType], out: TensorType, kernel: WgmmaKernel
) -> tuple[Step, ...]:
    """Pack b, pad the depth of a, then multiply batch by batch."""
    a, b = activations
    m, k = a.shape[-2:]
    batch, depth = prod(a.shape[:-2]), round_up(k, kernel.channel_alignment // item_bytes(a.dtype))
    problem = Problem(
        **_model(op, a, (batch, 1, m, depth), out.shape[-1]), out_shape=(1, m), groups_of_weights=batch
    )
    tiling = choose(problem, kernel)
    padded = TensorType((*a.shape[:-1], depth), a.dtype)
    steps = [] if depth == k else [padding_step(a, depth, padded)]
    weights = TensorType((batch * tiling.weight_rows, tiling.weight_depth), b.dtype)
    steps.append(Step(pack_product(b, tiling, {TEMPLATE: "pack_product"}), (1,), weights, "pack_product"))
    scale = filled(np.full(out.shape[-1], op.factor, np.float32), tiling)
    source: Argument = 0 if depth == k else PREVIOUS - 1
    args = (source, *NO_RESIDUAL, PREVIOUS, scale, np.zeros_like(scale))
    epilogue = Epilogue(op.out, op.lo, op.hi, zero_point=op.out_zero_point)
    return (*steps, wgmma_step(op, tiling, epilogue, padded, args, out))
