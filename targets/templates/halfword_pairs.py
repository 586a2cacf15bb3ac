"""Sums of two 16-bit products in a scalar register, with bytes widened by pairs (Arm's SMLAD and SXTB16)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hwptq.targets.fields.about import INTRINSIC, about
from hwptq.targets.fields.problems import join

from . import meanings
from .base import Kernel
from .intrinsics import Call, Vector, pair_sum


@dataclass(frozen=True)
class HalfwordPairsKernel(Kernel):
    """`acc += a[0] * w[0] + a[1] * w[1]` of halfwords: bytes 0 and 2 of a word, then its bytes 1 and 3."""

    template: ClassVar[str] = "halfword_pairs"
    serves: ClassVar[tuple[str, ...]] = ("conv2d", "dense")
    intrinsic: str = field(
        metadata=about(
            "LLVM name of (pair, pair, accumulator) -> accumulator, e.g. llvm.arm.smlad",
            not_empty=True,
            **INTRINSIC,
        )
    )
    widen: str = field(
        metadata=about(
            "LLVM name of word -> pair: bytes 0 and 2 with their signs, e.g. llvm.arm.sxtb16",
            not_empty=True,
            **INTRINSIC,
        )
    )
    tile_pixels: int = field(default=2, metadata=about("output pixels kept in registers", low=1, high=64))
    tile_vectors: int = field(
        default=2, metadata=about("output channels kept in registers, per pixel", low=1, high=64)
    )
    dense_vectors: int = field(
        default=4, metadata=about("the same where there is one pixel only", low=1, high=64)
    )

    def intrinsics(self, path: str) -> tuple[Call, ...]:
        word, why = Vector("int32", 1), "word and pair are 32 bits"
        widen = Call(join(path, "widen"), self.widen, word, (word,), why, meanings.even_bytes)
        return pair_sum(join(path, "intrinsic"), self.intrinsic), widen
