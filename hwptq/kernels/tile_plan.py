"""How a convolution is cut for registers that hold matrices: which pixels, channels and inputs one holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from hwptq.targets.templates.tile_registers import TileRegistersKernel
from hwptq.tir.kernel import TensorType

from .convolution import Convolution
from .pack_weights import pack_weights, stored_rows, vector_count
from .tile_instructions import K
from .vector_blocks import blocks

_PARTIAL = 1.1  # cost of results that are stored in parts of a row of registers


@dataclass(frozen=True)
class TilePlan:
    """Accumulators of `lines` x `vectors` registers, each `rows` pixels by `kernel.columns` channels.

    A row of output pixels is cut into `segments`, the last of which may overlap the one before it. All
    segments, row after row, are the lines, each a register of activations; `lines` of them make a block, the
    last of which may overlap too. A stretch of the window is cut into `chunks` of `groups` groups of K
    inputs.
    """

    conv: Convolution
    kernel: TileRegistersKernel
    segments: int
    lines: int
    vectors: int
    weight_bits: int = 8  # 4: two a byte, which are unpacked for a block of vectors at a time

    @property
    def rows(self) -> int:
        """Pixels of a register."""
        return -(-self.conv.out[1] // self.segments)

    @property
    def all_lines(self) -> int:
        """Lines of the whole result."""
        return self.conv.batch * self.conv.out[0] * self.segments

    @property
    def blocks(self) -> int:
        """Blocks of lines."""
        return -(-self.all_lines // self.lines)

    @property
    def chunks(self) -> int:
        """Registers of activations that a stretch of the window takes."""
        return -(-self.conv.run // self.kernel.row_bytes)

    @property
    def steps(self) -> int:
        """Registers of activations that the whole window takes."""
        return prod(self.conv.runs) * self.chunks

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
    def sizes(self) -> list[tuple[int, int]]:
        """(bytes of a row, rows) of each register, accumulators first."""
        wide, accumulators = self.kernel.row_bytes, self.lines * self.vectors
        sizes = [(wide, self.rows)] * accumulators + [(self.groups * K, self.rows)] * self.activations
        return sizes + [(wide, self.groups)] * (self.kernel.registers - len(sizes))

    @property
    def width(self) -> int:
        """Bytes of a row of weights: a group of inputs of a vector of channels."""
        return self.kernel.columns * K

    @property
    def activations(self) -> int:
        """Registers of activations: those of one vector of channels are used once, so they take turns."""
        left = self.kernel.registers - self.lines * self.vectors - 1
        return min(self.lines, left) if self.vectors == 1 else self.lines

    @property
    def pixels_first(self) -> bool:
        """Whether a block of pixels meets all channels before the next one does: where all weights stay near,
        so that neither the input nor the result comes and goes with each block of channels."""
        weights = self.all_vectors * self.stored_rows * self.kernel.row_bytes
        return (
            self.weight_bits == 8
            and self.vectors < self.all_vectors
            and weights <= 2 * self.kernel.near_bytes
        )

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
    least, most = -(-conv.out[1] // kernel.rows), vector_count(conv.co, kernel.columns)
    for lines in range(1, kernel.registers - 1):
        for vectors in range(1, most + 1):
            activations = 1 if vectors == 1 else lines
            if lines * vectors + activations + 1 > kernel.registers:
                break
            for segments in range(least, min(least + lines, conv.out[1] + 1)):
                plan = TilePlan(conv, kernel, segments, lines, vectors)
                if lines <= plan.all_lines and plan.rows * (segments - 1) < conv.out[1]:
                    plans.append(plan)
    return plans


def _cycles(plan: TilePlan) -> float:
    """About how many the layer takes."""
    kernel, total = plan.kernel, 0.0
    for _, count, vectors in blocks(plan.all_vectors, plan.vectors):
        multiplied = max(plan.lines * vectors * plan.rows, kernel.latency)
        activations, weights = plan.lines * plan.rows, vectors * plan.groups
        loaded = (activations + weights) / kernel.loaded_rows
        held = plan.steps * weights * kernel.row_bytes <= kernel.near_bytes
        far = (activations + (0 if held else weights)) / kernel.far_rows
        stored = kernel.end * (1.0 if vectors % K == 0 else _PARTIAL)
        ends = kernel.latency + plan.lines * vectors * plan.rows * (1 + stored)
        total += count * (plan.steps * max(multiplied, loaded, far) + ends)
    return total * plan.blocks
