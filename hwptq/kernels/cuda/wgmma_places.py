"""Which rows, columns and pixels a tile of the wgmma kernel holds, as expressions over its index."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from tvm import tirx

from .tiling import Tiling


@dataclass(frozen=True)
class Places:
    """The places of a tiling's tiles; every argument and result is an int32 expression of TIR."""

    tiling: Tiling

    @property
    def row_tiles(self) -> int:
        """Tiles that cover the pixels of the output."""
        return prod(self.tiling.grid[:3])

    @property
    def tiles(self) -> int:
        return prod(self.tiling.grid)

    @property
    def rounds(self) -> int:
        """Tiles of the first block; block b has those at b, b + blocks, …"""
        return -(-self.tiles // self.tiling.blocks)

    def tile(self, index: Any) -> tuple[Any, Any]:
        """(row tile, column tile) of a tile: `group` row tiles share their weights in the cache."""
        group, columns = self.tiling.group, self.tiling.grid[3]
        first = index // (group * columns) * group
        size = tirx.min(self.row_tiles - first, group)
        within = index % (group * columns)
        return first + within % size, within // size

    def x(self, row_tile: Any, step: Any) -> list[Any]:
        """Where TMA begins to load x, innermost axis first: channel, column, row, image."""
        t, p = self.tiling, self.tiling.problem
        _, tiles_h, tiles_w, _ = t.grid
        box_n, box_h, box_w = t.box
        tap = step // t.chunks
        return [
            (step % t.chunks) * t.chunk,
            (row_tile % tiles_w) * (box_w * p.strides[1]) + tap % p.kernel[1] * p.dilation[1] - p.padding[1],
            (row_tile // tiles_w % tiles_h) * (box_h * p.strides[0])
            + tap // p.kernel[1] * p.dilation[0]
            - p.padding[0],
            (row_tile // (tiles_w * tiles_h)) * box_n,
        ]

    def w(self, row_tile: Any, column_tile: Any) -> Any:
        """The first row of the packed weights of a tile."""
        t = self.tiling
        _, tiles_h, tiles_w, _ = t.grid
        image = row_tile // (tiles_w * tiles_h) * t.weight_rows if t.problem.groups_of_weights > 1 else 0
        return image + column_tile * t.columns

    def pixel(self, row_tile: Any, row: Any) -> tuple[Any, Any]:
        """The output pixel that a row of a tile holds, and whether there is one.

        An axis of one gets no index: that of a dense layer overflows in TVM's analysis.
        """
        t, p = self.tiling, self.tiling.problem
        oh, ow = p.out_shape
        _, tiles_h, tiles_w, _ = t.grid
        box_n, box_h, box_w = t.box
        x = (row_tile % tiles_w) * box_w + row % box_w
        inside = [row < box_n * box_h * box_w, x < ow]
        pixel = x
        if oh > 1:
            y = (row_tile // tiles_w % tiles_h) * box_h + row // box_w % box_h
            inside, pixel = [*inside, y < oh], y * ow + pixel
        if p.images[0] > 1:
            image = (row_tile // (tiles_w * tiles_h)) * box_n + row // (box_w * box_h)
            inside, pixel = [*inside, image < p.images[0]], image * (oh * ow) + pixel
        return pixel, tirx.all(*inside)
