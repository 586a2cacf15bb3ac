"""Depthwise convolution by a dot-product instruction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hwptq.targets.fields.about import INTRINSIC, about
from hwptq.targets.fields.problems import Problems, join

from .base import Kernel
from .intrinsics import Call, dot_product
from .limits import check_vector


@dataclass(frozen=True)
class DepthwiseDotKernel(Kernel):
    """Depthwise by `acc[lanes] += sum over 4 of activation * weight`: four rows, interleaved."""

    template: ClassVar[str] = "depthwise_dot_product"
    serves: ClassVar[tuple[str, ...]] = ("depthwise_conv2d",)
    intrinsic: str = field(
        metadata=about(
            "LLVM name of an instruction that adds 4 products of 8 bits to each lane",
            not_empty=True,
            **INTRINSIC,
        )
    )
    lanes: int = field(metadata=about("int32 accumulators per vector", low=4, high=1024))
    unsigned_activation: bool = field(
        default=False, metadata=about("activations enter as uint8 (q + 128), the bias repairs it")
    )
    tile_pixels: int = field(
        default=1,
        metadata=about("output pixels that share interleaved columns; 1 = rows as they lie", low=1, high=64),
    )
    resident_vectors: int = field(
        default=0,
        metadata=about(
            "vectors of channels whose weights stay in registers along a row; its rows are interleaved once, "
            "in a buffer; 0 = rows are interleaved in registers, for each tile",
            low=0,
            high=16,
        ),
    )
    operands_as_int32: bool = field(
        default=False, metadata=about("LLVM types both operands as vectors of int32 (Hexagon), not of int8")
    )
    block: int = field(
        default=16,
        metadata=about(
            "bytes within which the device interleaves vectors: 16 on x86-64; 4 on Hexagon, where it takes "
            "every other byte",
            low=4,
            high=1024,
            power_of_two=True,
        ),
    )

    def check(self, path: str, registers: int | None, problems: Problems) -> None:
        check_vector(self.lanes * 32, "lanes * 32", join(path, "lanes"), problems)

    def intrinsics(self, path: str) -> tuple[Call, ...]:
        order = ("accumulator", "activation", "weight")
        types = self.lanes, 4, 8, order, self.operands_as_int32, self.unsigned_activation
        return (dot_product(path, self.intrinsic, *types),)
