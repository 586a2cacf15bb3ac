"""Depthwise convolution by plain vectors of channels, or by pairs of taps of one channel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hwptq.targets.fields.about import INTRINSIC, about
from hwptq.targets.fields.problems import Problems, join

from .base import Kernel
from .intrinsics import Call, pair_sum
from .limits import check_vector


@dataclass(frozen=True)
class DepthwiseKernel(Kernel):
    """Vector of channels, int16 products, int32 sums: no intrinsic; or two taps of a channel by one."""

    template: ClassVar[str] = "depthwise"
    serves: ClassVar[tuple[str, ...]] = ("depthwise_conv2d",)
    lanes: int = field(default=16, metadata=about("channels per step; 1 = no vectors", low=1, high=1024))
    tile_pixels: int = field(default=2, metadata=about("output pixels kept in registers", low=1, high=64))

    pairs: str = field(
        default="",
        metadata=about(
            "LLVM name of (pair, pair, accumulator) -> accumulator of 16-bit pairs, e.g. llvm.arm.smlad: "
            "two taps at once, with lanes = 1",
            **INTRINSIC,
        ),
    )

    def check(self, path: str, registers: int | None, problems: Problems) -> None:
        if self.lanes > 1:
            check_vector(self.lanes * 8, "lanes * 8", join(path, "lanes"), problems)
        if self.pairs and self.lanes > 1:
            problems.add(join(path, "lanes"), "must be 1 beside `pairs`: pairs are taps of one channel")

    def intrinsics(self, path: str) -> tuple[Call, ...]:
        return (pair_sum(join(path, "pairs"), self.pairs),) if self.pairs else ()
