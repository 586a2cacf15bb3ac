"""Convolution and dense by an instruction that adds the dot product of two vectors to a scalar (VMLADAVA)."""

from __future__ import annotations

from tvm.script.ir_builder import tirx as T

from hwptq.targets.templates.reducing_dot_product import ReducingDotKernel
from hwptq.tir.builder import Expr

from .mac import Mac
from .register_tile import Tile
from .tiled import Tiled, Tiling


class ReducingDot(Tiled[ReducingDotKernel]):
    """Layers by an instruction whose accumulator is one scalar register."""

    table = ReducingDotKernel

    @property
    def tiling(self) -> Tiling:
        kernel = self.kernel
        tile = Tile(kernel.tile_pixels, kernel.tile_vectors)
        return Tiling(kernel.template, mac_of(kernel), tile, kernel.dense_vectors)


def mac_of(kernel: ReducingDotKernel) -> Mac:
    """The instruction of `kernel` as the register tile uses it: once for each lane."""

    def accumulate(acc: Expr, activation: Expr, weight: Expr) -> Expr:
        leading = (T.int32(number) for number in kernel.leading)
        return T.call_llvm_pure_intrin("int32", kernel.intrinsic, *leading, acc, activation, weight)

    return Mac(
        rows=1,
        lanes=kernel.lanes,
        k=kernel.k,
        groups=1,
        activation="int8",
        weight="int8",
        pick=lambda loaded, u, groups: loaded[0],
        accumulate=accumulate,
        apart=True,
        gather=kernel.gather,
    )
