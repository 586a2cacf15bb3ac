"""Lookup by an instruction that permutes bytes of registers (pshufb, vpermi2b, tbl)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hwptq.targets.fields.about import INTRINSIC, about
from hwptq.targets.fields.problems import Problems, join

from .base import Kernel
from .intrinsics import Call, Vector


@dataclass(frozen=True)
class TablePermuteKernel(Kernel):
    """Bytes selected by byte indices from a table in registers: pshufb, vpermi2b, tbl."""

    template: ClassVar[str] = "table_permute"
    serves: ClassVar[tuple[str, ...]] = ("lookup",)
    intrinsic: str = field(
        metadata=about(
            "LLVM intrinsic of table registers and indices, e.g. llvm.aarch64.neon.tbl4.v16i8",
            not_empty=True,
            **INTRINSIC,
        )
    )
    lanes: int = field(
        metadata=about("bytes of each operand and of the result", low=8, high=128, power_of_two=True)
    )
    entries: int = field(
        metadata=about(
            "how many one instruction selects from; a register holds entries / registers, again and again",
            low=16,
            high=256,
            power_of_two=True,
        )
    )
    registers: int = field(
        default=1, metadata=about("table registers an instruction takes", choices=(1, 2, 4))
    )
    indices: int = field(default=1, metadata=about("which operand they are, from 0", low=0, high=4))
    outside: str = field(
        default="zero",
        metadata=about(
            "the result for an index of `entries` or more: zero (tbl); low_bits: the others do not count "
            "(vpermi2b); zero_if_negative: as low_bits, but 0 if the highest bit is set (pshufb)",
            choices=("zero", "low_bits", "zero_if_negative"),
        ),
    )
    joining: str = field(
        default="",
        metadata=about(
            "where outside is zero: LLVM intrinsic of (v, table registers, indices) that gives v instead, "
            'e.g. llvm.aarch64.neon.tbx4.v16i8; "" = an or',
            **INTRINSIC,
        ),
    )

    def check(self, path: str, registers: int | None, problems: Problems) -> None:
        held = self.entries // self.registers
        if held > self.lanes:
            problems.add(
                join(path, "entries"),
                f"{self.entries} in {self.registers} registers are {held} in each, of {self.lanes} bytes",
            )
        if self.indices > self.registers:
            problems.add(
                join(path, "indices"),
                f"there are {self.registers + 1} operands, the last one is number {self.registers}",
            )
        if self.joining and self.outside != "zero":
            problems.add(join(path, "joining"), "is for instructions that give 0 for indices outside")
        if self.outside == "zero_if_negative" and self.entries > 128:
            problems.add(join(path, "entries"), "an int8 that is not negative is an index below 128")

    def intrinsics(self, path: str) -> tuple[Call, ...]:
        vector = Vector("int8", self.lanes)
        operands = (vector,) * (self.registers + 1)
        why = f"lanes {self.lanes} and registers {self.registers} make {len(operands)} operands {vector}"
        return (
            Call(join(path, "intrinsic"), self.intrinsic, vector, operands, why),
            Call(join(path, "joining"), self.joining, vector, (vector, *operands), f"{why}, and one more"),
        )
