"""Dot products: an instruction that adds k products to each lane (sdot, vpdpbusd, pmaddwd)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hwptq.targets.fields.about import INTRINSIC, about
from hwptq.targets.fields.problems import Problems, join

from .base import Kernel
from .intrinsics import Call, dot_product
from .limits import check_vector, check_weight_group, weight_group

_OTHER = "; an instruction that adds up whole vectors takes the template reducing_dot_product"


@dataclass(frozen=True)
class DotProductKernel(Kernel):
    """`acc[lanes] += sum over k of activation[k] * weight[lanes][k]`, one instruction."""

    template: ClassVar[str] = "dot_product"
    serves: ClassVar[tuple[str, ...]] = ("conv2d", "dense", "group_dense", "matmul")
    intrinsic: str = field(
        metadata=about("LLVM name, e.g. llvm.x86.avx512.vpdpbusd.512", not_empty=True, **INTRINSIC)
    )
    lanes: int = field(metadata=about("int32 accumulators per vector", low=1, high=1024))
    k: int = field(metadata=about("products summed into each lane", low=1, high=64))
    operand_bits: int = field(
        metadata=about(
            "width of both operands in bits; lanes * k * operand_bits = vector bits", choices=(8, 16)
        )
    )
    unsigned_activation: bool = field(
        default=False, metadata=about("activations enter as uint8 (q + 128), the bias repairs it")
    )
    accumulates: bool = field(
        default=True, metadata=about("the intrinsic takes the accumulator as its first operand")
    )
    by_element: bool = field(
        default=False,
        metadata=about("4 groups of k activations are loaded at once and picked by lane (sdot by element)"),
    )
    tile_pixels: int = field(default=7, metadata=about("output pixels kept in registers", low=1, high=64))
    tile_vectors: int = field(
        default=2, metadata=about("vectors of output channels kept in registers, per pixel", low=1, high=64)
    )
    dense_vectors: int = field(
        default=4, metadata=about("the same where there is one pixel only", low=1, high=64)
    )
    group_pixels: int = field(
        default=2,
        metadata=about("tokens kept in registers where weights have a scale for each group", low=1, high=64),
    )
    group_vectors: int = field(
        default=2, metadata=about("the same of vectors of output channels", low=1, high=64)
    )
    operands_as_int32: bool = field(
        default=False,
        metadata=about("LLVM types both operands as vectors of int32 (Hexagon), not of operand_bits"),
    )
    aligned: bool = field(
        default=False,
        metadata=about(
            "activations are loaded from multiples of k elements only, so channels are filled up to it; for "
            "devices without unaligned scalar loads"
        ),
    )
    weight_group: int = weight_group()
    accumulator_last: bool = field(
        default=False,
        metadata=about("the intrinsic takes the accumulator as its last operand, not its first (smlad)"),
    )

    @property
    def order(self) -> tuple[str, ...]:
        """What the operands of the intrinsic are."""
        pair = ("weight", "activation") if self.by_element else ("activation", "weight")
        if not self.accumulates:
            return pair
        return (*pair, "accumulator") if self.accumulator_last else ("accumulator", *pair)

    def check(self, path: str, registers: int | None, problems: Problems) -> None:
        k, bits = self.k, self.operand_bits
        check_weight_group(self.weight_group, k, path, problems)
        check_vector(self.lanes * k * bits, "lanes * k * operand_bits", join(path, "lanes"), problems)
        if k * bits != 32:
            problems.add(
                join(path, "k"),
                f"k * operand_bits is {k * bits}: the operands of one int32 lane take 32 bits, "
                f"so k is {32 // bits} for operands of {bits} bits{_OTHER if self.lanes == 1 else ''}",
            )
        if self.unsigned_activation and bits != 8:
            problems.add(
                join(path, "unsigned_activation"),
                "is for operands of 8 bits; int8 fits 16 bits with its sign",
            )

    def intrinsics(self, path: str) -> tuple[Call, ...]:
        types = self.lanes, self.k, self.operand_bits, self.order, self.operands_as_int32
        return (dot_product(path, self.intrinsic, *types, self.unsigned_activation),)

    def int4_group(self) -> int:
        return self.weight_group
