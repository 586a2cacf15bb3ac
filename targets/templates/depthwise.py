"""Depthwise convolution by plain vectors of channels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hwptq.targets.fields.about import about
from hwptq.targets.fields.problems import Problems, join

from .base import Kernel
from .limits import check_vector


@dataclass(frozen=True)
class DepthwiseKernel(Kernel):
    """Vector of channels, int16 products, int32 sums: no intrinsic."""

    template: ClassVar[str] = "depthwise"
    serves: ClassVar[tuple[str, ...]] = ("depthwise_conv2d",)
    lanes: int = field(default=16, metadata=about("channels per step; 1 = no vectors", low=1, high=1024))
    tile_pixels: int = field(default=2, metadata=about("output pixels kept in registers", low=1, high=64))

    def check(self, path: str, registers: int | None, problems: Problems) -> None:
        if self.lanes > 1:
            check_vector(self.lanes * 8, "lanes * 8", join(path, "lanes"), problems)
