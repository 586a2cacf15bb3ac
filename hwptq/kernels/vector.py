"""Convolution and dense by plain vector code: one activation times a vector of output channels."""

from __future__ import annotations

from tvm.script.ir_builder import tirx as T

from hwptq.targets.templates.vector import VectorKernel
from hwptq.tir.builder import Expr, cast, splat

from .mac import Mac
from .register_tile import Tile
from .tiled import Tiled, Tiling


class Vector(Tiled[VectorKernel]):
    """Layers by what the compiler makes of a multiplication and an addition."""

    table = VectorKernel

    @property
    def tiling(self) -> Tiling:
        kernel = self.kernel
        tile = Tile(kernel.tile_pixels, kernel.tile_vectors)
        return Tiling(kernel.template, mac_of(kernel), tile, kernel.tile_vectors)


def mac_of(kernel: VectorKernel) -> Mac:
    """One multiply-accumulate as the register tile uses it."""
    lanes = kernel.lanes

    def pick(loaded: list[Expr], u: int, groups: int) -> Expr:
        if not kernel.by_scalar:
            return splat(cast(loaded[0], "int32"), lanes)
        return cast(splat(_alone(cast(loaded[0], "int16")), lanes), "int32", lanes)

    def accumulate(acc: Expr, activation: Expr, weight: Expr) -> Expr:
        return acc + activation * cast(weight, "int32", lanes)

    return Mac(1, lanes, 1, 1, "int8", "int8", pick, accumulate, unroll=kernel.unroll, halfwords=True)


def _alone(value: Expr) -> Expr:
    """An int16 that LLVM leaves a scalar: else it copies its byte into all lanes, and widens those."""
    return T.call_llvm_pure_intrin("int16", "llvm.ssa.copy.i16", value)
