"""Products by single warps of NVIDIA GPUs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hwptq.targets.fields.about import about

from .base import Kernel


@dataclass(frozen=True)
class MmaKernel(Kernel):
    """Products on tensor cores by single warps, mma.sync.m16n8k32: NVIDIA GPUs without wgmma."""

    template: ClassVar[str] = "mma"
    serves: ClassVar[tuple[str, ...]] = ("conv2d", "dense")
    columns: int = field(
        default=64,
        metadata=about("output channels of a warp", low=8, high=128, power_of_two=True),
    )
    warps: int = field(default=4, metadata=about("warps of a block, 16 rows each", low=1, high=16))
    channel_alignment: int = field(
        default=16,
        metadata=about(
            "channels of a tensor are padded to a multiple of it", low=4, high=128, power_of_two=True
        ),
    )
