"""Convolution and dense by two 16-bit products an instruction, of bytes that are widened by pairs (SMLAD)."""

from __future__ import annotations

from tvm.script.ir_builder import tirx as T

from hwptq.targets.templates.halfword_pairs import HalfwordPairsKernel
from hwptq.tir.builder import Expr

from .mac import Mac
from .register_tile import Tile
from .tiled import Tiled, Tiling

_K = 4  # bytes of a word
_BYTE = 8


class HalfwordPairs(Tiled[HalfwordPairsKernel]):
    """Layers by an instruction that adds two products to a scalar register."""

    table = HalfwordPairsKernel

    @property
    def tiling(self) -> Tiling:
        kernel = self.kernel
        tile = Tile(kernel.tile_pixels, kernel.tile_vectors)
        return Tiling(kernel.template, mac_of(kernel), tile, kernel.dense_vectors)


def mac_of(kernel: HalfwordPairsKernel) -> Mac:
    """Four products as the register tile uses them: LLVM finds what pixels and channels share."""

    def word(operand: Expr) -> Expr:
        return T.reinterpret("int32", operand)

    def pairs(operand: Expr) -> list[Expr]:
        """Bytes 0 and 2, bytes 1 and 3: the rotation is part of the instruction."""
        turned = T.call_llvm_pure_intrin("int32", "llvm.fshr.i32", operand, operand, T.int32(_BYTE))
        return [T.call_llvm_pure_intrin("int32", kernel.widen, v) for v in (operand, turned)]

    def accumulate(acc: Expr, activation: Expr, weight: Expr) -> Expr:
        for a, w in zip(pairs(activation), pairs(word(weight)), strict=True):
            acc = T.call_llvm_pure_intrin("int32", kernel.intrinsic, a, w, acc)
        return acc

    return Mac(
        rows=1,
        lanes=1,
        k=_K,
        groups=1,
        activation="int8",
        weight="int8",
        pick=lambda loaded, u, groups: word(loaded[0]),
        accumulate=accumulate,
    )
