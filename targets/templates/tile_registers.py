"""Registers that hold matrices: an instruction multiplies two of them and adds to a third (AMX)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hwptq.targets.fields.about import INTRINSIC, about
from hwptq.targets.fields.problems import Problems, join

from .base import Kernel
from .intrinsics import Address, Call, Immediate, Operand

_LEAST = 3  # registers: an accumulator, an activation, a weight


@dataclass(frozen=True)
class TileRegistersKernel(Kernel):
    """`acc[row][column] += sum over k of activation[row][k] * weight[column][k]`, a row is a pixel.

    A register has up to `rows` rows of `row_bytes` bytes, as the layer configures it. That of the weights
    holds a group of 4 inputs in a row: [k / 4][column][4].
    """

    template: ClassVar[str] = "tile_registers"
    serves: ClassVar[tuple[str, ...]] = ("conv2d", "dense", "group_dense")
    multiply: str = field(
        metadata=about(
            "LLVM intrinsic of (accumulator, activations, weights), numbers of registers, of int8 by int8: "
            "llvm.x86.tdpbssd",
            not_empty=True,
            **INTRINSIC,
        )
    )
    load: str = field(
        metadata=about("LLVM intrinsic of (register, address, stride)", not_empty=True, **INTRINSIC)
    )
    store: str = field(
        metadata=about("LLVM intrinsic of (register, address, stride)", not_empty=True, **INTRINSIC)
    )
    configure: str = field(
        metadata=about(
            "LLVM intrinsic of the address of 64 bytes: palette 1, bytes of a row from byte 16, rows from "
            "byte 48",
            not_empty=True,
            **INTRINSIC,
        )
    )
    release: str = field(
        metadata=about("LLVM intrinsic that gives the registers back", not_empty=True, **INTRINSIC)
    )
    clear: str = field(
        default="",
        metadata=about(
            "LLVM intrinsic of a register, which makes it 0: for layers with scales by group", **INTRINSIC
        ),
    )
    group_tokens: int = field(
        default=0,
        metadata=about(
            "tokens from which on layers with scales by group are computed; 0 = none", low=0, high=2**20
        ),
    )
    group_vectors: int = field(
        default=4,
        metadata=about(
            "vectors of channels whose codes are packed in turns: as the kernel for one token, so that a "
            "program with both has them once",
            low=1,
            high=64,
        ),
    )
    registers: int = field(default=8, metadata=about("registers that hold matrices", low=1, high=8))
    rows: int = field(default=16, metadata=about("rows of a register", low=1, high=16))
    latency: int = field(
        default=0, metadata=about("cycles until an accumulator can be added to again", low=0, high=1000)
    )
    loaded_rows: int = field(default=1, metadata=about("rows that are loaded in a cycle", low=1, high=16))
    far_rows: float = field(
        default=1.0,
        metadata=about("rows that are loaded in a cycle from beyond near_bytes", low=0.01, high=16.0),
    )
    near_bytes: int = field(
        default=0, metadata=about("bytes of weights that stay where loads are fast", low=0, high=2**30)
    )
    end: float = field(
        default=0.0,
        metadata=about(
            "cycles to requantize a row of an accumulator, beside those to store it", low=0.0, high=1e3
        ),
    )
    row_bytes: int = field(default=64, metadata=about("bytes of a row", low=4, high=64))

    @property
    def columns(self) -> int:
        """Output channels of an accumulator: its rows hold int32."""
        return self.row_bytes // 4

    def check(self, path: str, registers: int | None, problems: Problems) -> None:
        if self.row_bytes & (self.row_bytes - 1):
            problems.add(join(path, "row_bytes"), f"must be a power of two, not {self.row_bytes}")
        if self.registers < _LEAST:
            problems.add(join(path, "registers"), f"at least {_LEAST}: accumulator, activations, weights")
        if self.group_tokens and not self.clear:
            problems.add(join(path, "clear"), "missing: layers with scales by group need it")

    def intrinsics(self, path: str) -> tuple[Call, ...]:
        moved: tuple[Operand, ...] = (Immediate(0), Address(), Immediate(self.row_bytes, "int64"))
        calls: tuple[tuple[str, str, tuple[Operand, ...]], ...] = (
            ("multiply", self.multiply, (Immediate(0), Immediate(1), Immediate(2))),
            ("load", self.load, moved),
            ("store", self.store, moved),
            ("configure", self.configure, (Address(),)),
            ("release", self.release, ()),
            *([("clear", self.clear, (Immediate(0),))] if self.clear else []),
        )
        return tuple(
            Call(join(path, key), name, None, operands, "registers are numbers, memory is an address")
            for key, name, operands in calls
        )
