"""The [requantize] of a descriptor: instructions of the step from int32 sums to results of few bits."""

from __future__ import annotations

from dataclasses import dataclass, field

from .fields.about import INTRINSIC, about


@dataclass(frozen=True)
class Requantize:
    """Intrinsics of the requantize step; without multiply_high 64-bit integers are used (same result)."""

    lanes: int = field(
        default=4, metadata=about("int32 values per intrinsic call", low=1, high=64, power_of_two=True)
    )
    multiply_high: str = field(
        default="",
        metadata=about(
            "LLVM intrinsic of (a, m) -> (2*a*m + 2^31) >> 32, e.g. llvm.aarch64.neon.sqrdmulh.v4i32",
            **INTRINSIC,
        ),
    )
    multiply_low: str = field(
        default="",
        metadata=about(
            "LLVM intrinsic of (a, m) -> l where multiply_high takes (l, a, m), "
            "e.g. llvm.hexagon.V6.vmpyewuh.128B",
            **INTRINSIC,
        ),
    )
    rounding_shift: str = field(
        default="",
        metadata=about(
            "LLVM intrinsic of (v, -s) -> (v + 2^(s-1)) >> s, e.g. llvm.aarch64.neon.srshl.v4i32; "
            '"" = an addition and a shift',
            **INTRINSIC,
        ),
    )
    rounding_shift_flags: tuple[int, ...] = field(
        default=(),
        metadata=about(
            "numbers that rounding_shift takes behind its operands, e.g. [0, 1, 0] of arm.mve.vshl.vector",
            low=0,
            high=255,
        ),
    )
    fixed_point: bool = field(
        default=False,
        metadata=about(
            "products are LLVM's smul.fix of 32 bits, not of 64: for processors and vector units that have "
            "instructions for both words of a product, which LLVM finds then"
        ),
    )
    saturate: str = field(
        default="",
        metadata=about(
            'LLVM intrinsic of (int32, bits) -> int32 that fits so many bits, e.g. llvm.arm.ssat; "" = '
            "comparisons",
            **INTRINSIC,
        ),
    )
    wide_products: bool = field(
        default=False,
        metadata=about("int64 products are made of every other lane (pmuldq), so even and odd ones go apart"),
    )
    pack_words: str = field(
        default="",
        metadata=about(
            "LLVM intrinsic that narrows two int32 vectors to int16 with saturation, in blocks of 128 bits, "
            "e.g. llvm.x86.avx512.packssdw.512",
            **INTRINSIC,
        ),
    )
    pack_bytes: str = field(
        default="",
        metadata=about(
            "the same from int16 to int8, e.g. llvm.x86.avx512.packsswb.512; give both or none",
            **INTRINSIC,
        ),
    )
    pack_unsigned_bytes: str = field(
        default="",
        metadata=about(
            "the same from int16 to uint8, e.g. llvm.x86.avx512.packuswb.512; where kernels take unsigned "
            "activations",
            **INTRINSIC,
        ),
    )
    saturating_casts: bool = field(
        default=False,
        metadata=about("one instruction halves the bits of each lane with saturation, e.g. sqxtn"),
    )
