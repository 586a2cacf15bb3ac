"""What registers that hold matrices (AMX) are told: their sizes, to load, to store, to multiply."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.targets.templates.tile_registers import TileRegistersKernel
from hwptq.tir.builder import Expr, constant, local

K = 4  # inputs of a group: the products that a lane adds up at once
_MOST = 16  # registers that a configuration can name


def _instruction(intrinsic: str, *operands: Expr) -> None:
    """One instruction, by the name of its LLVM intrinsic."""
    T.evaluate(T.call_llvm_intrin("void", intrinsic, *operands))


def move(intrinsic: str, register: int, address: Expr, stride: Expr) -> None:
    """Load or store a register whose rows are `stride` bytes apart in memory."""
    _instruction(intrinsic, T.int8(register), address, T.cast(stride, "int64"))


def multiply(kernel: TileRegistersKernel, accumulator: int, activations: int, weights: int) -> None:
    """accumulator += activations x weights."""
    _instruction(kernel.multiply, *map(T.int8, (accumulator, activations, weights)))


def configuration(sizes: Sequence[tuple[int, int]]) -> bytes:
    """(bytes of a row, rows) of each register -> the 64 bytes that say so."""
    filled = [*sizes, *[(0, 0)] * (_MOST - len(sizes))]
    columns = np.array([size[0] for size in filled], "<u2").tobytes()
    return bytes([1] + [0] * 15) + columns + bytes(size[1] for size in filled)


def configure(kernel: TileRegistersKernel, sizes: Sequence[tuple[int, int]]) -> None:
    """Tell the registers of this thread their sizes."""
    words = np.frombuffer(configuration(sizes), "<i8")
    memory = local(len(words), "int64")
    for at, word in enumerate(words):
        memory.store(at, constant(int(word), "int64"))
    _instruction(kernel.configure, memory.address(0))


def release(kernel: TileRegistersKernel) -> None:
    """Give the registers of this thread back."""
    _instruction(kernel.release)


def clear(kernel: TileRegistersKernel, register: int) -> None:
    """A register of zeros."""
    _instruction(kernel.clear, T.int8(register))


def prefetch(address: Expr) -> None:
    """Ask for a line of memory, to be read soon but not at once."""
    read, second_level, data = T.int32(0), T.int32(2), T.int32(1)
    T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch.p0", address, read, second_level, data))
