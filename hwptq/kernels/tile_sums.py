"""The registers of a block: which hold accumulators, activations and weights, and how they multiply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hwptq.tir.builder import Expr, Flat, nest

from .tile_instructions import K, move, multiply
from .tile_plan import TilePlan

#: Code for something of this number.
Code = Callable[[Expr], None]


@dataclass(frozen=True)
class TileSums:
    """Accumulators of the first `vectors` vectors of a block come first, then activations, then weights.

    In memory they are int32 [line][row][vector][column].
    """

    plan: TilePlan
    vectors: int

    @property
    def pixel(self) -> int:
        """Sums of a pixel in memory."""
        return self.vectors * self.plan.kernel.columns

    @property
    def products(self) -> int:
        """Of a step."""
        return self.vectors * self.plan.lines

    def start(self, bias: Flat, v0: Expr) -> None:
        """Each accumulator has the bias of its channels in every row."""
        lanes = self.plan.kernel.columns
        for v in range(self.vectors):
            for line in range(self.plan.lines):
                move(self.plan.kernel.load, self._accumulator(line, v), bias.address((v0 + v) * lanes), 0)

    def multiply(
        self, x: Flat, windows: Sequence[Expr], weight: Flat, between: Code | None, beside: Code | None
    ) -> None:
        """Add all products: `windows` are those of the first pixel of each line, `weight` begins with the
        first vector. between(i) is code behind product i, beside(i) behind all products of step i."""
        plan, conv = self.plan, self.plan.conv
        step, (rows, columns) = conv.strides[1] * conv.ci, conv.runs
        per_vector, width = rows * columns * plan.run_rows, plan.kernel.columns * K

        def chunk(ky: Expr, kx: Expr, c: Expr) -> None:
            tap, run = conv.tap(ky, kx) + c * plan.groups * K, ky * columns + kx
            row = run * plan.run_rows + c * plan.groups

            def load_activation(line: int) -> None:
                move(plan.kernel.load, self._activation(line), x.address(windows[line] + tap), step)

            number = run * plan.chunks + c
            for v in range(self.vectors):
                at = (v * per_vector + row) * width
                move(plan.kernel.load, self._weight(v), weight.address(at), width)
                for line in range(plan.lines):
                    if v == 0:
                        load_activation(line)
                    numbers = self._accumulator(line, v), self._activation(line), self._weight(v)
                    multiply(plan.kernel, *numbers)
                    if between:
                        between(number * self.products + v * plan.lines + line)
            if beside:
                beside(number)

        nest((rows, columns, plan.chunks), chunk)

    def store(self, memory: Flat) -> None:
        """Write the accumulators to memory."""
        lanes = self.plan.kernel.columns
        for line in range(self.plan.lines):
            for v in range(self.vectors):
                at = line * self.plan.rows * self.pixel + v * lanes
                register = self._accumulator(line, v)
                move(self.plan.kernel.store, register, memory.address(at), self.pixel * 4)

    def _accumulator(self, line: int, vector: int) -> int:
        return line * self.plan.vectors + vector

    def _activation(self, line: int) -> int:
        return self.plan.lines * self.plan.vectors + line % self.plan.activations

    def _weight(self, vector: int) -> int:
        """Its register: they take turns in those that are left."""
        taken = self.plan.lines * self.plan.vectors + self.plan.activations
        return taken + vector % (self.plan.kernel.registers - taken)
