"""LLVM intrinsics as kernels call them: what a descriptor is checked against LLVM with."""

from __future__ import annotations

from dataclasses import dataclass

from hwptq.targets.fields.problems import join, show

from . import meanings
from .meanings import Meaning

TRIED_BYTES = 64  # of memory that offsets reach where an instruction is tried


@dataclass(frozen=True)
class Vector:
    """Operand type: 16 lanes of int8 are mangled as v16i8."""

    dtype: str
    lanes: int

    def __str__(self) -> str:
        return f"v{self.lanes}i{self.dtype.removeprefix('int')}"


@dataclass(frozen=True)
class Memory(Vector):
    """An operand that points to so many values, which the call reads."""


@dataclass(frozen=True)
class Written(Vector):
    """An operand that points to as many zeros, which the call changes: its result."""


@dataclass(frozen=True)
class Immediate:
    """An operand that is a number in the instruction: a register, a stride."""

    value: int
    dtype: str = "int8"


@dataclass(frozen=True)
class Address:
    """An operand that points to memory."""


Operand = Vector | Immediate | Address


@dataclass(frozen=True)
class Call:
    """An intrinsic as a kernel will call it; one without a result changes memory or registers."""

    path: str
    name: str
    result: Vector | None
    operands: tuple[Operand, ...]
    why: str  # the fields that make the operand types
    meaning: Meaning | None = None  # what it computes of its vectors, where a table says so
    ranges: tuple[tuple[int, int], ...] = ()  # of the values of each vector; () = all that there are

    @property
    def vectors(self) -> tuple[Vector, ...]:
        """The operands that hold values."""
        held = (operand for operand in self.operands if isinstance(operand, Vector))
        return tuple(operand for operand in held if not isinstance(operand, Written))


def dot_product(
    path: str, intrinsic: str, lanes: int, k: int, bits: int, order: tuple[str, ...], as_int32: bool,
    unsigned_activation: bool,
) -> Call:  # fmt: skip
    """acc[lanes] += sum over k; `order` of "accumulator" (where it takes it), "activation" and "weight".

    `as_int32`: LLVM types the operands as vectors of int32.
    """
    result = Vector("int32", lanes)
    operand = result if as_int32 else Vector(f"int{bits}", lanes * k)
    operands = tuple(result if name == "accumulator" else operand for name in order)
    why = (
        f"lanes {lanes}, k {k}, operand_bits {bits} and accumulates {show('accumulator' in order)} "
        f"make operands {', '.join(map(str, operands))}"
    )
    meaning = meanings.dot_product(lanes, k, bits, order, unsigned_activation)
    return Call(join(path, "intrinsic"), intrinsic, result, operands, why, meaning)


def pair_sum(path: str, intrinsic: str) -> Call:
    """(pair, pair, accumulator) -> accumulator + the two products of 16-bit halves."""
    word, order = Vector("int32", 1), ("activation", "weight", "accumulator")
    meaning = meanings.dot_product(1, 2, 16, order, False)
    return Call(path, intrinsic, word, (word,) * 3, "pairs and accumulator are words of 32 bits", meaning)


def gather_bytes(path: str, intrinsic: str, k: int) -> Call:
    """(address, int16 offsets, bits in memory, shift, unsigned) -> k / 2 bytes in halfwords."""
    half = Vector("int16", k // 2)
    byte, none = Immediate(8, "int32"), Immediate(0, "int32")
    operands: tuple[Operand, ...] = (Memory("int8", TRIED_BYTES), half, byte, none, none)
    ranges = (-128, 127), (0, TRIED_BYTES - 1)
    why = f"k {k} makes offsets {half}"
    return Call(join(path, "gather"), intrinsic, half, operands, why, meanings.gathered, ranges)


def reducing_dot(path: str, intrinsic: str, k: int, leading: tuple[int, ...]) -> Call:
    """(leading numbers, accumulator, activation, weight) -> accumulator + dot product of k int8 values."""
    sum_, operand = Vector("int32", 1), Vector("int8", k)
    numbers = tuple(Immediate(number, "int32") for number in leading)
    why = f"k {k} makes operands {operand}, behind {len(leading)} leading numbers and the sum"
    operands: tuple[Operand, ...] = (*numbers, sum_, operand, operand)
    meaning = meanings.dot_product(1, k, 8, ("accumulator", "activation", "weight"), False)
    return Call(join(path, "intrinsic"), intrinsic, sum_, operands, why, meaning)
