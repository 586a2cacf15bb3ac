"""How a convolution is cut for registers that hold matrices: which pixels, channels and inputs one holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from hwptq.targets.templates.tile_registers import TileRegistersKernel
from hwptq.tir.kernel import TensorType

from .convolution import Convolution
from .pack_weights import pack_weights, stored_rows, vector_count
from .register_tile import blocks, even

K = 4  # inputs of a group: the products that a lane adds up at once


@dataclass(frozen=True)
class TilePlan:
    """Accumulators of `lines` x `vectors` registers, each `rows` pixels by `kernel.columns` channels.

    A block of `pixels` neighbours has `lines` registers of activations; where they do not go up, the last one
    overlaps the one before it. A stretch of the window is cut into `chunks` of `groups` groups of K inputs.
    """

    conv: Convolution
    kernel: TileRegistersKernel
    pixels: int
    lines: int
    vectors: int
    weight_bits: int = 8  # 4: two a byte, which are unpacked for a block of vectors at a time

    @property
    def rows(self) -> int:
        """Pixels of a register."""
        return -(-self.pixels // self.lines)

    @property
    def starts(self) -> list[int]:
        """The first pixel of each line."""
        return [min(i * self.rows, self.pixels - self.rows) for i in range(self.lines)]

    @property
    def chunks(self) -> int:
        """Registers of activations that a stretch of the window takes."""
        return -(-self.conv.run // self.kernel.row_bytes)

    @property
    def groups(self) -> int:
        """Groups of K inputs in a register, the same in each."""
        return -(-self.conv.run // (K * self.chunks))

    @property
    def padded_run(self) -> int:
        """Inputs that are multiplied for a stretch, those beyond its end by weights of 0."""
        return self.chunks * self.groups * K

    @property
    def slack(self) -> int:
        """Elements that the loads of a stretch reach beyond it."""
        return self.padded_run - self.conv.run

    @property
    def all_vectors(self) -> int:
        """Vectors of output channels."""
        return vector_count(self.conv.co, self.kernel.columns)

    @property
    def configuration(self) -> bytes:
        """What the registers are told: bytes of a row and rows of each, accumulators first."""
        activations, wide = self.lines * self.vectors, self.kernel.row_bytes
        sizes = [(wide, self.rows)] * activations + [(self.groups * K, self.rows)] * self.lines
        sizes += [(wide, self.groups)] * (self.kernel.registers - len(sizes))
        columns = np.array([s[0] for s in sizes] + [0] * (16 - len(sizes)), "<u2").tobytes()
        rows = bytes([s[1] for s in sizes] + [0] * (16 - len(sizes)))
        return bytes([1] + [0] * 15) + columns + rows

    @property
    def run_rows(self) -> int:
        """Rows of registers for a stretch of the window and a vector of channels."""
        return self.chunks * self.groups

    @property
    def stored_run_rows(self) -> int:
        """Rows that hold them."""
        return stored_rows(self.run_rows, self.weight_bits)

    @property
    def stored_rows(self) -> int:
        """Rows that hold a vector of channels."""
        return prod(self.conv.runs) * self.stored_run_rows

    def packed(self, weight: np.ndarray) -> np.ndarray:
        """int8 [O, ...] -> int8 [vectors * stored_rows, columns * K]: rows of registers, or two in one."""
        run = self.conv.run
        runs = weight.reshape(len(weight), -1, run)
        wide = np.pad(runs, ((0, 0), (0, 0), (0, self.slack)))
        return pack_weights(wide, self.padded_run, self.kernel.columns, K, self.weight_bits)

    def tensors(self, x: TensorType, out: TensorType) -> list[TensorType]:
        """Types of the parameters: x, packed weights, bias, multiplier and shift (or scale)."""
        lanes, rows = self.kernel.columns, self.all_vectors * self.stored_rows
        scales = ("float32",) if out.dtype == "float32" else ("int32", "int32")
        per_channel = [TensorType((self.all_vectors * lanes,), d) for d in ("int32", *scales)]
        return [x, TensorType((rows, lanes * K), "int8"), *per_channel]


def fit(
    conv: Convolution, kernel: TileRegistersKernel, choice: int = 0, weight_bits: int = 8
) -> TilePlan:  # fmt: skip
    """The plan for a shape with the fewest cycles; a `choice` above 0 is the next best one."""
    found = sorted(_plans(conv, kernel), key=_cycles)
    return replace(found[min(choice, len(found) - 1)], weight_bits=weight_bits)


def _plans(conv: Convolution, kernel: TileRegistersKernel) -> list[TilePlan]:
    """All that the registers hold: accumulators, the activations of each line, and weights one at a time."""
    plans = []
    most = vector_count(conv.co, kernel.columns)
    for lines in range(1, kernel.registers - 1):
        pixels = even(conv.out[1], lines * kernel.rows)
        for vectors in range(1, most + 1):
            if lines * vectors + lines + 1 > kernel.registers:
                break
            if lines == 1 or pixels >= lines:
                plans.append(TilePlan(conv, kernel, pixels, lines, vectors))
    return plans


def _cycles(plan: TilePlan) -> float:
    """About how many a row of output pixels takes for each chunk of inputs."""
    total = 0.0
    for _, count, vectors in blocks(plan.all_vectors, plan.vectors):
        multiplied = max(plan.lines * vectors * plan.rows, plan.kernel.latency)
        loaded = (plan.lines * plan.rows + vectors * plan.groups) / plan.kernel.loaded_rows
        total += count * max(multiplied, loaded)
    return total * -(-plan.conv.out[1] // plan.pixels)
