"""Depthwise convolution by dot products of whole vectors (Arm's VMLADAVA), of elements that are gathered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hwptq.targets.fields.about import INTRINSIC, about
from hwptq.targets.fields.problems import Problems, join

from . import meanings
from .base import Kernel
from .intrinsics import Call, Immediate, Memory, Operand, Vector, Written, reducing_dot
from .limits import check_vector

_BYTE = 8  # bits of an element in memory
_TRIED = 64  # bytes that offsets reach where `targets check` tries them


@dataclass(frozen=True)
class ReducingDepthwiseKernel(Kernel):
    """acc += sum over k of patch[k] * weight[k]; a patch is what windows of neighbours read of a channel."""

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
        half, words = Vector("int16", self.k // 2), Vector("int32", self.lanes)
        byte, none = Immediate(_BYTE, "int32"), Immediate(0, "int32")
        gathered: tuple[Operand, ...] = (Memory("int8", _TRIED), half, byte, none, none)
        scattered: tuple[Operand, ...] = (Written("int8", _TRIED), words, words, byte, none)
        bytes_, places, any_ = (-128, 127), (0, _TRIED - 1), (-(2**31), 2**31 - 1)
        return (
            reducing_dot(path, self.intrinsic, self.k, self.leading),
            Call(
                join(path, "gather"), self.gather, half, gathered, f"k {self.k} makes offsets {half}",
                meanings.gathered, (bytes_, places),
            ),
            Call(
                join(path, "scatter"), self.scatter, Vector("int8", _TRIED), scattered,
                f"lanes {self.lanes} makes offsets {words}", meanings.scattered(_TRIED), (places, any_),
            ),
        )  # fmt: skip
