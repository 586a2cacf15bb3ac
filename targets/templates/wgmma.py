"""Products by warpgroups of NVIDIA Hopper."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hwptq.targets.fields.about import about

from .base import Kernel


@dataclass(frozen=True)
class WgmmaTile:
    """How warpgroups cut a product into tiles, and what that costs.

    Of the tiles that fit a product, the one of the least time is taken: tiles of the busiest block *
    (bytes of depth / 128 * step_ns + end_ns), with alone_ns for step_ns where that is a single tile.
    """

    columns: int = field(metadata=about("output channels of a tile", choices=(64, 128, 192, 256)))
    step_ns: int = field(
        metadata=about("nanoseconds for 128 bytes of a tile's depth, as measured", low=1, high=10**6)
    )
    alone_ns: int = field(
        metadata=about("the same for a tile that its multiprocessor works on alone", low=1, high=10**6)
    )
    end_ns: int = field(
        metadata=about("nanoseconds that the end of a tile adds, as measured", low=0, high=10**6)
    )
    strips: int = field(
        default=1, metadata=about("times 64 rows of a tile belong to each warpgroup", low=1, high=2)
    )
    sharing: str = field(
        default="together",
        metadata=about(
            "together: both warpgroups share a tile; in_turn: each has tiles of its own, one multiplies "
            "while the other stores; apart: each has tiles and stages of its own, the second half a tile "
            "behind",
            choices=("together", "in_turn", "apart"),
        ),
    )
    promoted: bool = field(default=True, metadata=about("for promoted sums, else for others"))
    warpgroups: int = field(
        default=2, metadata=about("that multiply; more than 2 only together", choices=(2, 3))
    )
    pairs: bool = field(
        default=False,
        metadata=about(
            "of one strip and promoted sums: two steps are in flight, one is added while the other runs"
        ),
    )


@dataclass(frozen=True)
class WgmmaKernel(Kernel):
    """Tiles of a product on the tensor cores of NVIDIA Hopper: wgmma, fed by TMA."""

    template: ClassVar[str] = "wgmma"
    serves: ClassVar[tuple[str, ...]] = ("conv2d", "dense", "matmul")
    tiles: tuple[WgmmaTile, ...] = field(metadata=about("candidates", not_empty=True))
    stages: int = field(default=6, metadata=about("tiles of the operands in flight", low=2, high=16))
    shared_memory: int = field(
        default=232448, metadata=about("bytes of shared memory of a block", low=2**14, high=2**20)
    )
    multiprocessors: int = field(
        default=132, metadata=about("blocks that run at the same time", low=1, high=4096)
    )
    channel_alignment: int = field(
        default=16,
        metadata=about(
            "channels of a tensor are padded to a multiple of it", low=16, high=128, power_of_two=True
        ),
    )
