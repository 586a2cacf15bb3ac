"""Dot products of whole vectors, added to one scalar register (Arm's VMLADAVA)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hwptq.targets.fields.about import INTRINSIC, about
from hwptq.targets.fields.problems import Problems, join

from .base import Kernel
from .intrinsics import Call, gather_bytes, reducing_dot
from .limits import check_vector


@dataclass(frozen=True)
class ReducingDotKernel(Kernel):
    """`acc += sum over k of activation[k] * weight[k]`, one instruction; acc is a scalar register."""

    template: ClassVar[str] = "reducing_dot_product"
    serves: ClassVar[tuple[str, ...]] = ("conv2d", "dense")
    intrinsic: str = field(
        metadata=about("LLVM name, e.g. llvm.arm.mve.vmldava.v16i8", not_empty=True, **INTRINSIC)
    )
    k: int = field(metadata=about("products of int8 summed by one instruction", low=4, high=256))
    lanes: int = field(
        default=4, metadata=about("output channels that are requantized together", low=1, high=64)
    )
    leading: tuple[int, ...] = field(
        default=(),
        metadata=about(
            "numbers that the intrinsic takes before the accumulator, e.g. [0, 0, 0] of vmldava",
            low=0,
            high=255,
        ),
    )
    tile_pixels: int = field(default=2, metadata=about("output pixels kept in registers", low=1, high=64))
    tile_vectors: int = field(
        default=1, metadata=about("times `lanes` output channels kept in registers", low=1, high=64)
    )
    dense_vectors: int = field(
        default=2, metadata=about("the same where there is one pixel only", low=1, high=64)
    )

    gather: str = field(
        default="",
        metadata=about(
            "LLVM name of (address, offsets, bits in memory, shift, unsigned) -> k / 2 bytes in halfwords: "
            'windows of short rows are gathered to whole vectors; "" = each row is loaded for itself',
            **INTRINSIC,
        ),
    )

    def check(self, path: str, registers: int | None, problems: Problems) -> None:
        check_vector(self.k * 8, "k * 8", join(path, "k"), problems)

    def intrinsics(self, path: str) -> tuple[Call, ...]:
        dot = reducing_dot(path, self.intrinsic, self.k, self.leading)
        return (dot, gather_bytes(path, self.gather, self.k)) if self.gather else (dot,)
