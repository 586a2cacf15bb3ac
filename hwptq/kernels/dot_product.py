"""Convolution and dense by a dot-product instruction: sdot, vpdpbusd, pmaddwd and their like."""

from __future__ import annotations

from math import prod

from tvm.script.ir_builder import tirx as T

from hwptq.formats import INT8, INT16
from hwptq.operators.group_dense import GroupDense, GroupEmbedding
from hwptq.operators.matmul import MatMul
from hwptq.targets.templates.dot_product import DotProductKernel
from hwptq.tir.builder import Expr, dtype_of, shuffle, splat
from hwptq.tir.kernel import Step

from .group_dot import group_dot, takes_groups
from .group_lookup import group_lookup
from .layer import Layer
from .mac import Mac
from .matmul_dot import fits, matmul_dot
from .register_tile import Tile
from .tiled import Tiled, Tiling

_LOADED_GROUPS = 4  # of a by-element instruction: the int32 lanes of a 128-bit register


class DotProduct(Tiled[DotProductKernel]):
    """Layers, and products of two activations, by an instruction that takes one pixel."""

    table = DotProductKernel

    @property
    def tiling(self) -> Tiling:
        kernel = self.kernel
        tile = Tile(kernel.tile_pixels, kernel.tile_vectors)
        return Tiling(kernel.template, mac_of(kernel), tile, kernel.dense_vectors)

    def takes(self, layer: Layer) -> bool:
        if isinstance(layer.op, GroupDense | GroupEmbedding):
            return takes_groups(layer, self._weights_first)
        return not isinstance(layer.op, MatMul) or fits(layer.activations, self.tiling.mac, self.unit)

    def steps(self, layer: Layer) -> tuple[Step, ...]:
        if isinstance(layer.op, MatMul):
            op, activations, out, choice = layer.op, layer.activations, layer.out, self.schedule.tile
            return matmul_dot(op, activations, out, self.tiling, self.unit, choice)
        if isinstance(layer.op, GroupDense | GroupEmbedding):
            return self._grouped(layer)
        return super().steps(layer)

    def _grouped(self, layer: Layer) -> tuple[Step, ...]:
        """A look-up of as many tokens as a dense layer has takes the rows as that one does."""
        one, kernel = prod(layer.out.shape[:-1]) == 1, self.kernel
        most = Tile(1, kernel.dense_vectors) if one else Tile(kernel.group_pixels, kernel.group_vectors)
        together = kernel.dense_vectors if self.schedule.beside_one else most.vectors
        if isinstance(layer.op, GroupEmbedding):
            return group_lookup(layer, kernel.lanes, kernel.k, together)
        assert isinstance(layer.op, GroupDense)
        # codes that leave the sign of an operand free need no step that subtracts from each of them
        positive = kernel.operand_bits == INT8.bits and layer.op.weight_bits < INT8.bits
        unsigned = kernel.unsigned_activation or positive
        return group_dot(layer, self._weights_first, unsigned, most, self.unit, together)

    @property
    def _weights_first(self) -> Mac:
        """The instruction with the weights as its unsigned operand, if it has one: codes are unsigned."""
        return mac_of(self.kernel, weights_first=True)


def mac_of(kernel: DotProductKernel, weights_first: bool = False) -> Mac:
    """The instruction of `kernel` as the register tile uses it; weights_first: they are its first operand."""
    operand = dtype_of(f"int{kernel.operand_bits}", kernel.lanes * kernel.k)
    if kernel.operands_as_int32:
        operand = dtype_of("int32", kernel.lanes)
    result = dtype_of("int32", kernel.lanes)
    group = f"int{kernel.operand_bits * kernel.k}"  # k activations seen as one integer

    def pick(loaded: list[Expr], u: int, groups: int) -> Expr:
        whole = T.reinterpret(dtype_of(group, groups), loaded[0])
        if groups == 1:
            return T.reinterpret(operand, splat(whole, kernel.lanes))
        copies = -(-kernel.lanes // groups)  # a Shuffle yields no more lanes than it takes
        return T.reinterpret(operand, shuffle([whole] * copies, [u] * kernel.lanes))

    def accumulate(acc: Expr, activation: Expr, weight: Expr) -> Expr:
        weight = T.reinterpret(operand, weight) if kernel.operands_as_int32 else weight
        if weights_first and not kernel.by_element:  # which has them first anyway
            weight, activation = activation, weight
        given = {"accumulator": acc, "activation": activation, "weight": weight}
        found = T.call_llvm_pure_intrin(result, kernel.intrinsic, *(given[name] for name in kernel.order))
        return found if kernel.accumulates else acc + found

    signed = f"int{kernel.operand_bits}"
    return Mac(
        rows=1,
        lanes=kernel.lanes,
        k=kernel.k,
        groups=_LOADED_GROUPS if kernel.by_element else 1,
        activation="uint8" if kernel.unsigned_activation and not weights_first else signed,
        weight=signed,
        pick=pick,
        accumulate=accumulate,
        aligned=kernel.aligned,
        halfwords=kernel.operand_bits == INT16.bits,
    )
