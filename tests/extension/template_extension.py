"""A kernel template of one's own: two products a lane, in plain TIR, for any device.

Importing this file is all it takes: a descriptor may then say `template = "pair_product"`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hwptq.kernels.mac import Mac
from hwptq.kernels.register_tile import Tile
from hwptq.kernels.tiled import Tiled, Tiling
from hwptq.targets.fields.about import about
from hwptq.targets.fields.problems import Problems, join
from hwptq.targets.templates.base import Kernel
from hwptq.targets.templates.limits import check_vector
from hwptq.tir.builder import Expr, cast, shuffle


@dataclass(frozen=True)
class PairProductKernel(Kernel):
    """acc[lanes] += the products of two neighbouring activations, as compilers know how to add them."""

    template: ClassVar[str] = "pair_product"
    serves: ClassVar[tuple[str, ...]] = ("conv2d", "dense")
    lanes: int = field(metadata=about("int32 accumulators per vector", low=1, high=64))
    tile_pixels: int = field(default=2, metadata=about("output pixels kept in registers", low=1, high=16))

    def check(self, path: str, registers: int | None, problems: Problems) -> None:
        check_vector(self.lanes * 32, "lanes * 32", join(path, "lanes"), problems)


class PairProduct(Tiled[PairProductKernel]):
    """Layers, by register tiles of one vector of channels."""

    table = PairProductKernel

    @property
    def tiling(self) -> Tiling:
        tile = Tile(self.kernel.tile_pixels, 1)
        return Tiling(self.kernel.template, _mac_of(self.kernel.lanes), tile, dense_vectors=1)


def _mac_of(lanes: int) -> Mac:
    def pick(loaded: list[Expr], u: int, groups: int) -> Expr:
        return shuffle([loaded[0]] * lanes, [0, 1] * lanes)

    def accumulate(acc: Expr, activation: Expr, weight: Expr) -> Expr:
        products = cast(activation, "int32", 2 * lanes) * cast(weight, "int32", 2 * lanes)
        even, odd = (shuffle([products], range(first, 2 * lanes, 2)) for first in (0, 1))
        return acc + even + odd

    return Mac(1, lanes, 2, 1, "int16", "int16", pick, accumulate)
