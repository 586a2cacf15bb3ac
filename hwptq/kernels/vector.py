"""Convolution and dense by plain vector code: one activation times a vector of output channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwptq.operators.layers import IntegerLayer
from hwptq.targets.templates.vector import VectorKernel
from hwptq.tir.builder import Expr, cast, splat
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.vector_unit import VectorUnit

from .epilogue import Follower
from .register_tile import Mac, Tile
from .tiled import Template, tiled_steps


def vector(
    op: IntegerLayer,
    x: TensorType,
    constants: Sequence[np.ndarray],
    out: TensorType,
    kernel: VectorKernel,
    unit: VectorUnit,
    followers: Sequence[Follower] = (),
) -> tuple[Step, ...]:
    """The steps of a Conv2d (one group) or dense; `constants` are its weight, bias and scales."""
    tile = Tile(kernel.tile_pixels, kernel.tile_vectors)
    template = Template(kernel.template, mac_of(kernel), tile, kernel.tile_vectors)
    return tiled_steps(op, x, constants, out, template, unit, followers)


def mac_of(kernel: VectorKernel) -> Mac:
    """One multiply-accumulate as the register tile uses it."""
    lanes = kernel.lanes

    def pick(loaded: list[Expr], u: int, groups: int) -> Expr:
        return splat(cast(loaded[0], "int32"), lanes)

    def accumulate(acc: Expr, activation: Expr, weight: Expr) -> Expr:
        return acc + activation * cast(weight, "int32", lanes)

    return Mac(1, lanes, 1, 1, "int8", "int8", pick, accumulate)
