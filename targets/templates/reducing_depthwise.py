"""Depthwise convolution by dot products of whole vectors (Arm's VMLADAVA), of elements that are gathered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hwptq.targets.fields.about import INTRINSIC, about
from hwptq.targets.fields.problems import Problems, join

from . import meanings
from .base import Kernel
from .intrinsics import TRIED_BYTES, Call, Immediate, Operand, Vector, Written, gather_bytes, reducing_dot
from .limits import check_vector

_BYTE = 8  # bits of an element in memory


@dataclass(frozen=True)
class ReducingDepthwiseKernel(Kernel):
    """`acc += sum over k of patch[k] * weight[k]`; a patch is what neighbouring windows read of a channel."""

    template: ClassVar[str] = "reducing_depthwise"
    serves: ClassVar[tuple[str, ...]] = ("depthwise_conv2d",)
    intrinsic: str = field(
        metadata=about("LLVM name, e.g. llvm.arm.mve.vmldava.v16i8", not_empty=True, **INTRINSIC)
    )
    k: int = field(metadata=about("products of int8 summed by one instruction", low=4, high=256))
    gather: str = field(
        metadata=about(
            "LLVM name of (address, offsets, bits in memory, shift, unsigned) -> k / 2 bytes in halfwords, "
            "e.g. llvm.arm.mve.vldr.gather.offset",
            not_empty=True,
            **INTRINSIC,
        )
    )
    scatter: str = field(
        metadata=about(
            "LLVM name of (address, offsets, words, bits in memory, shift): stores the lowest byte of each "
            "word, e.g. llvm.arm.mve.vstr.scatter.offset",
            not_empty=True,
            **INTRINSIC,
        )
    )
    lanes: int = field(
        default=4, metadata=about("pixels that are requantized together, or channels", low=2, high=16)
    )
    leading: tuple[int, ...] = field(
        default=(),
        metadata=about(
            "numbers that the intrinsic takes before the accumulator, e.g. [0, 0, 0] of vmldava",
            low=0,
            high=255,
        ),
    )
    resident: int = field(
        default=4, metadata=about("vectors of weights that stay in registers", low=0, high=64)
    )
    tile_pixels: int = field(
        default=2,
        metadata=about(
            "output pixels kept in registers where vectors of channels are better", low=1, high=64
        ),
    )

    def check(self, path: str, registers: int | None, problems: Problems) -> None:
        check_vector(self.k * _BYTE, "k * 8", join(path, "k"), problems)
        check_vector(self.lanes * 32, "lanes * 32", join(path, "lanes"), problems)

    def intrinsics(self, path: str) -> tuple[Call, ...]:
        words = Vector("int32", self.lanes)
        byte, none = Immediate(_BYTE, "int32"), Immediate(0, "int32")
        scattered: tuple[Operand, ...] = (Written("int8", TRIED_BYTES), words, words, byte, none)
        ranges = (0, TRIED_BYTES - 1), (-(2**31), 2**31 - 1)
        return (
            reducing_dot(path, self.intrinsic, self.k, self.leading),
            gather_bytes(path, self.gather, self.k),
            Call(
                join(path, "scatter"), self.scatter, Vector("int8", TRIED_BYTES), scattered,
                f"lanes {self.lanes} makes offsets {words}", meanings.scattered(TRIED_BYTES), ranges,
            ),
        )  # fmt: skip
