"""Convolution and dense by a matrix-multiply instruction such as smmla: a few pixels by a few channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.operators.layers import IntegerLayer
from hwptq.targets.templates.matrix_multiply import MatrixMultiplyKernel
from hwptq.tir.builder import Expr, dtype_of, shuffle
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.vector_unit import VectorUnit

from .epilogue import Follower
from .register_tile import Mac, Tile
from .tiled import Template, tiled_steps

_LOADED_GROUPS = 2  # of k activations of one pixel: two pixels' loads then make two operands


def matrix_multiply(
    op: IntegerLayer,
    x: TensorType,
    constants: Sequence[np.ndarray],
    out: TensorType,
    kernel: MatrixMultiplyKernel,
    unit: VectorUnit,
    followers: Sequence[Follower] = (),
) -> tuple[Step, ...]:
    """The steps of a Conv2d (one group) or dense; `constants` are its weight, bias and scales."""
    tile = Tile(kernel.tile_pixels, kernel.tile_vectors)
    template = Template(kernel.template, mac_of(kernel), tile, kernel.dense_vectors)
    return tiled_steps(op, x, constants, out, template, unit, followers)


def mac_of(kernel: MatrixMultiplyKernel) -> Mac:
    """The instruction of `kernel` as the register tile uses it."""
    result = dtype_of("int32", kernel.rows * kernel.columns)

    def pick(loaded: list[Expr], u: int, groups: int) -> Expr:
        size = groups * kernel.k
        return shuffle(
            loaded, [p * size + u * kernel.k + i for p in range(kernel.rows) for i in range(kernel.k)]
        )

    def accumulate(acc: Expr, activation: Expr, weight: Expr) -> Expr:
        return T.call_llvm_pure_intrin(result, kernel.intrinsic, acc, activation, weight)

    return Mac(
        rows=kernel.rows,
        lanes=kernel.columns,
        k=kernel.k,
        groups=_LOADED_GROUPS,
        activation="int8",
        weight="int8",
        pick=pick,
        accumulate=accumulate,
        assembly=kernel.assembly,
    )
