"""Convolution and dense by a matrix-multiply instruction such as smmla: a few pixels by a few channels."""

from __future__ import annotations

from tvm.script.ir_builder import tirx as T

from hwptq.targets.templates.matrix_multiply import MatrixMultiplyKernel
from hwptq.tir.builder import Expr, dtype_of, shuffle

from .mac import Mac
from .register_tile import Tile
from .tiled import Tiled, Tiling

_LOADED_GROUPS = 2  # of k activations of one pixel: two pixels' loads then make two operands


class MatrixMultiply(Tiled[MatrixMultiplyKernel]):
    """Layers by an instruction that takes several pixels."""

    table = MatrixMultiplyKernel

    @property
    def tiling(self) -> Tiling:
        kernel = self.kernel
        tile = Tile(kernel.tile_pixels, kernel.tile_vectors)
        return Tiling(kernel.template, mac_of(kernel), tile, kernel.dense_vectors)


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
