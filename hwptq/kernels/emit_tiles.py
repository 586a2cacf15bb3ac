"""The code of a convolution by registers that hold matrices: multiply, store the sums, requantize them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import (
    WHOLE,
    Expr,
    Flat,
    Part,
    Parts,
    constant,
    in_parts,
    local,
    loop,
    nest,
    start_of,
    unravel,
    workspace,
)
from hwptq.tir.kernel import TensorType
from hwptq.tir.layout import Padding
from hwptq.tir.requantize import Bounds
from hwptq.tir.stored import Stored
from hwptq.tir.vector_unit import VectorUnit

from .cells import Output
from .epilogue import Follower, place
from .register_tile import blocks
from .store_tile import store_tile
from .tile_plan import K, TilePlan

_STORED_VECTORS = 4  # vectors of int32 that are requantized together: one of int8


def emit_tiles(
    plan: TilePlan, bounds: Bounds | None, out: TensorType, unit: VectorUnit, parts: Parts = WHOLE,
    followers: Sequence[Follower] = (),
) -> Callable[..., None]:  # fmt: skip
    """Code of (x packed, weights of TilePlan.packed, bias, multiplier, shift, …, y); see emit_tiled.

    Registers belong to a thread: each of `parts` configures its own.
    """
    conv, kernel = plan.conv, plan.kernel
    tiles = (conv.batch, conv.out[0], -(-conv.out[1] // plan.pixels))

    def emit(x: Flat, weight: Flat, bias: Flat, *rest: Flat) -> None:
        count = 1 if bounds is None else 2
        scales, arrays, y = rest[:count], rest[count:-1], rest[-1]

        def tile(v0: Expr, vectors: int, weights: Flat, b: Expr, row: Expr, t: Expr) -> None:
            x0 = start_of(t, plan.pixels, conv.out[1])
            sums = _Sums(plan, vectors)
            sums.multiply(x, conv.window(b, row, x0), weights, bias, v0)
            sums.finish((b, row, x0), v0, scales, arrays, y, bounds, unit, followers)

        def block(part: Part, number: Expr, vectors: int) -> None:
            v0 = number * plan.vectors
            first, many = part.of(prod(tiles), turn=number) if part.count > 1 else (0, prod(tiles))
            weights = weight.behind(v0 * plan.stored_rows * kernel.columns * K)
            if plan.weight_bits == 4:
                weights = _unpacked(plan, weights, vectors)
            loop(many, lambda i: tile(v0, vectors, weights, *unravel(first + i, tiles)))

        border = Stored(y, out).border(unit)

        def part(own: Part) -> None:
            if border:
                border[1](*own.of(border[0]))
            _configure(plan)
            for first, many, vectors in blocks(plan.all_vectors, plan.vectors):
                number = first // plan.vectors
                loop(many, lambda c, n=number, v=vectors: block(own, n + c, v))  # type: ignore[misc]
            instruction(kernel.release)

        in_parts(prod(tiles) * -(-plan.all_vectors // plan.vectors), parts, part)

    return emit


def instruction(intrinsic: str, *operands: Expr) -> None:
    """One instruction, by the name of its LLVM intrinsic."""
    T.evaluate(T.call_llvm_intrin("void", intrinsic, *operands))


def _configure(plan: TilePlan) -> None:
    """Tell the registers their sizes."""
    words = np.frombuffer(plan.configuration, "<i8")
    memory = local(len(words), "int64")
    for at, word in enumerate(words):
        memory.store(at, constant(int(word), "int64"))
    instruction(plan.kernel.configure, memory.address(0))


def _unpacked(plan: TilePlan, packed: Flat, vectors: int) -> Flat:
    """Weights of a block of vectors, 16 times an int4 each, as rows of registers, in memory of its own.

    Each row is written once: where the upper half of the last one of a stretch holds none, it is left.
    """
    width, runs = plan.kernel.columns * K, prod(plan.conv.runs)
    memory = workspace(vectors * runs * plan.run_rows * width, "int8")

    def stretch(run: Expr) -> None:
        def row(r: Expr, both: bool = True) -> None:
            found = T.bind(packed.load((run * plan.stored_run_rows + r) * width, width))
            at = (run * plan.run_rows + 2 * r) * width
            memory.store(at, T.shift_left(found, constant(4, "int8", width)), width)
            if both:
                memory.store(at + width, T.bitwise_and(found, constant(-16, "int8", width)), width)

        loop(plan.run_rows // 2, row)
        if plan.run_rows % 2:
            row(plan.run_rows // 2, both=False)

    loop(vectors * runs, stretch)
    return memory


class _Sums:
    """The accumulators of one tile: the first registers, then those of activations, then those of weights."""

    def __init__(self, plan: TilePlan, vectors: int):
        self.plan, self.vectors = plan, vectors

    def _accumulator(self, line: int, vector: int) -> int:
        return line * self.plan.vectors + vector

    def _activation(self, line: int) -> int:
        return self.plan.lines * self.plan.vectors + line

    def _weight(self, vector: int) -> int:
        """Its register: they take turns in those that are left."""
        taken = self.plan.lines * self.plan.vectors + self.plan.lines
        return taken + vector % (self.plan.kernel.registers - taken)

    def _load(self, register: int, address: Expr, stride: Expr) -> None:
        moved = T.int8(register), address, T.cast(stride, "int64")
        instruction(self.plan.kernel.load, *moved)

    def multiply(self, x: Flat, window: Expr, weight: Flat, bias: Flat, v0: Expr) -> None:
        """Start with the bias, and add all products of the windows; `window` is that of the first pixel, and
        `weight` begins with vector v0."""
        plan, conv = self.plan, self.plan.conv
        lanes, (rows, columns) = plan.kernel.columns, conv.runs
        for v in range(self.vectors):
            for line in range(plan.lines):  # all rows are one and the same
                self._load(self._accumulator(line, v), bias.address((v0 + v) * lanes), 0)
        step = conv.strides[1] * conv.ci
        per_vector, width = rows * columns * plan.run_rows, lanes * K

        def chunk(ky: Expr, kx: Expr, c: Expr) -> None:
            source = window + conv.tap(ky, kx) + c * plan.groups * K
            for line, start in enumerate(plan.starts):
                self._load(self._activation(line), x.address(source + start * step), step)
            row = (ky * columns + kx) * plan.run_rows + c * plan.groups
            for v in range(self.vectors):
                at = (v * per_vector + row) * width
                self._load(self._weight(v), weight.address(at), width)
                for line in range(plan.lines):
                    numbers = self._accumulator(line, v), self._activation(line), self._weight(v)
                    instruction(plan.kernel.multiply, *map(T.int8, numbers))

        nest((rows, columns, plan.chunks), chunk)

    def finish(
        self, at: tuple[Expr, Expr, Expr], v0: Expr, scales: Sequence[Flat], arrays: Sequence[Flat], y: Flat,
        bounds: Bounds | None, unit: VectorUnit, followers: Sequence[Follower],
    ) -> None:  # fmt: skip
        """Requantize the sums and store them in y, a few pixels at a time; `at` is the first of the tile."""
        plan, lanes = self.plan, self.plan.kernel.columns
        output = Output(plan.conv.co, lanes, bounds, whole=plan.vectors >= plan.all_vectors)
        b, row, x0 = at
        size = _together(plan.rows, self.vectors)
        for line, start in enumerate(plan.starts):
            sums = [local(plan.rows * lanes, "int32") for _ in range(self.vectors)]
            for v, memory in enumerate(sums):
                where = T.int8(self._accumulator(line, v)), memory.address(0), T.int64(lanes * K)
                instruction(plan.kernel.store, *where)

            def pixels(i: Expr, sums: list[Flat] = sums, start: int = start) -> None:
                first = i * size

                def offsets(border: Padding) -> list[Expr]:
                    return [plan.conv.pixel(b, row, x0 + start + first + p, border) for p in range(size)]

                values = [[m.load((first + p) * lanes, lanes) for m in sums] for p in range(size)]
                tail = place(followers, arrays, offsets)
                store_tile(values, scales, y, offsets(plan.conv.border), v0, output, unit, tail)

            loop(plan.rows // size, pixels)


def _together(rows: int, vectors: int) -> int:
    """Pixels that are finished at once: as few as fill whole vectors of int8, and divide the rows."""
    divisors = [n for n in range(1, rows + 1) if rows % n == 0]
    return next((n for n in divisors if n * vectors % _STORED_VECTORS == 0), rows)
