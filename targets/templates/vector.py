"""Plain vectors of output channels, for devices that have no instruction for sums of products."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hwptq.targets.fields.about import about
from hwptq.targets.fields.problems import Problems, join

from .base import Kernel
from .limits import check_vector


@dataclass(frozen=True)
class VectorKernel(Kernel):
    """Portable multiply-accumulate over a vector of output channels: no intrinsic, any LLVM target."""

    template: ClassVar[str] = "vector"
    serves: ClassVar[tuple[str, ...]] = ("conv2d", "dense")
    lanes: int = field(default=4, metadata=about("int32 accumulators per vector", low=1, high=1024))
    tile_pixels: int = field(default=4, metadata=about("output pixels kept in registers", low=1, high=64))
    tile_vectors: int = field(
        default=2, metadata=about("vectors of output channels kept in registers, per pixel", low=1, high=64)
    )

    by_scalar: bool = field(
        default=False,
        metadata=about(
            "an instruction adds products of a vector and a scalar of 16 bits each, e.g. vwmacc.vx"
        ),
    )
    unroll: int = field(
        default=1, metadata=about("inputs that one turn of the loop takes", low=1, high=64, power_of_two=True)
    )

    def check(self, path: str, registers: int | None, problems: Problems) -> None:
        check_vector(self.lanes * 32, "lanes * 32", join(path, "lanes"), problems)
