"""The code of a convolution by registers that hold matrices: multiply, store the sums, requantize them.

Multiplying leaves the vector units free, so the sums of a block are requantized between the products of the
next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import (
    WHOLE,
    Expr,
    Flat,
    Part,
    Parts,
    in_parts,
    loop,
    unravel,
    workspace,
)
from hwptq.tir.kernel import TensorType
from hwptq.tir.layout import Padding
from hwptq.tir.requantize import Bounds
from hwptq.tir.stored import Stored
from hwptq.tir.vector_unit import VectorUnit

from .cells import Held, Output
from .epilogue import Follower, place
from .store_tile import store_tile
from .tile_instructions import configure, prefetch, release
from .tile_plan import TilePlan
from .tile_sums import Code, TileSums
from .unpack_tiles import unpacked
from .vector_blocks import blocks

_STORED_VECTORS = 4  # vectors of int32 that are requantized together: one of int8


def emit_tiles(
    plan: TilePlan, bounds: Bounds | None, out: TensorType, unit: VectorUnit, parts: Parts = WHOLE,
    followers: Sequence[Follower] = (),
) -> Callable[..., None]:  # fmt: skip
    """Code of (x packed, weights of TilePlan.packed, bias, multiplier, shift, …, y); see emit_tiled.

    Registers belong to a thread: each of `parts` configures its own.
    """

    def emit(x: Flat, weight: Flat, bias: Flat, *rest: Flat) -> None:
        count = 1 if bounds is None else 2
        tensors = _Tensors(x, weight, bias, rest[:count], rest[count:-1], rest[-1])
        border = Stored(tensors.y, out).border(unit)

        def part(own: Part) -> None:
            if border:
                border[1](*own.of(border[0]))
            configure(plan.kernel, plan.sizes)
            memory = workspace(plan.lines * plan.rows * plan.vectors * plan.kernel.columns, "int32")
            for first, many, vectors in blocks(plan.all_vectors, plan.vectors):
                group = _Group(plan, vectors, tensors, memory, bounds, unit, followers)
                _channels(group, own, first // plan.vectors, many)
            release(plan.kernel)

        in_parts(plan.blocks * -(-plan.all_vectors // plan.vectors), parts, part)

    return emit


@dataclass(frozen=True)
class _Tensors:
    """The parameters of a kernel; `arrays` are those of the followers."""

    x: Flat
    weight: Flat
    bias: Flat
    scales: Sequence[Flat]
    arrays: Sequence[Flat]
    y: Flat


@dataclass(frozen=True)
class _Group:
    """What blocks of `vectors` vectors of channels have in common; `memory` is for the sums of one."""

    plan: TilePlan
    vectors: int
    tensors: _Tensors
    memory: Flat
    bounds: Bounds | None
    unit: VectorUnit
    followers: Sequence[Follower]

    @property
    def sums(self) -> TileSums:
        return TileSums(self.plan, self.vectors)

    @property
    def products(self) -> int:
        """Of a block of pixels and one of channels."""
        return self.plan.steps * self.sums.products

    def hold(self, block: Expr) -> list[Held]:
        """The scales of a block of channels."""
        v0, lanes = block * self.plan.vectors, self.plan.kernel.columns
        return [Held.of(scale, v0, self.vectors, lanes) for scale in self.tensors.scales]

    def weights(self, block: Expr) -> Flat:
        """Those of a block of channels."""
        return self.tensors.weight.behind(block * self.plan.vectors * self.plan.stored_rows * self.plan.width)

    def multiply(
        self, pixels: Expr, block: Expr, weights: Flat, between: Code | None, beside: Code | None = None
    ) -> None:
        """The sums of a block of pixels and one of channels."""
        windows = [T.bind(self.plan.conv.window(*at)) for at in _lines(self.plan, pixels)]
        self.sums.start(self.tensors.bias, block * self.plan.vectors)
        self.sums.multiply(self.tensors.x, windows, weights, between, beside)
        self.sums.store(self.memory)


def _channels(group: _Group, part: Part, number: int, many: int) -> None:
    """Code for `many` blocks of channels from block `number` on and all blocks of pixels of a part."""
    if group.plan.pixels_first:
        _pixels_first(group, part, number, many)
    else:
        loop(many, lambda c: _channels_first(group, part, number + c))


def _channels_first(group: _Group, part: Part, number: Expr) -> None:
    """A block of channels with all blocks of pixels; its scales stay in registers."""
    plan, own = group.plan, group.weights(number)
    first, many = _share(part, plan, number)
    weights = unpacked(plan, own, group.vectors) if plan.weight_bits == 4 else own
    scales = group.hold(number)

    def multiply(i: Expr, between: Code | None = None) -> None:
        fetch = _fetch(plan, own, group.vectors, i) if plan.weight_bits == 8 else None
        group.multiply(first + i, number, weights, between, fetch)

    _in_turn(many, multiply, lambda i: _Ends(group, number, scales).pieces(first + i), group.products)


def _pixels_first(group: _Group, part: Part, number: int, many: int) -> None:
    """Each block of pixels with all blocks of channels."""
    first, count = _share(part, group.plan, 0)

    def at(i: Expr) -> tuple[Expr, Expr]:
        return first + T.floordiv(i, many), number + T.floormod(i, many)

    def multiply(i: Expr, between: Code | None = None) -> None:
        pixels, block = at(i)
        group.multiply(pixels, block, group.weights(block), between)

    def pieces(i: Expr) -> Pieces:
        pixels, block = at(i)
        return _Ends(group, block, group.hold(block)).pieces(pixels)

    _in_turn(count * many, multiply, pieces, group.products)


def _share(part: Part, plan: TilePlan, turn: Expr) -> tuple[Expr, Expr]:
    """(first, number) of the blocks of pixels of a part."""
    return part.of(plan.blocks, turn=turn) if part.count > 1 else (0, plan.blocks)


def _fetch(plan: TilePlan, weight: Flat, vectors: int, turn: Expr) -> Code:
    """Code for a step of a turn that asks for the weights of the next block of channels.

    Each row of registers is a line of the cache; each step asks for so many that all come in time.
    """
    rows = vectors * plan.stored_rows
    each = -(-rows // (plan.blocks * plan.steps))

    def step(number: Expr) -> None:
        first = T.bind((turn * plan.steps + number) * each + rows)
        for row in range(each):
            prefetch(weight.address((first + row) * plan.width))

    return step


@dataclass(frozen=True)
class Pieces:
    """Code in `count` pieces: emit(number), in any loop; one may be done again."""

    count: int
    emit: Callable[[Expr], None]


def _in_turn(
    many: Expr, multiply: Callable[..., None], pieces: Callable[[Expr], Pieces], products: int
) -> None:  # fmt: skip
    """multiply(i) of `many` blocks; its `products` have pieces(i - 1) between them; the last ones follow."""

    def both(i: Expr) -> None:
        before = pieces(i)
        each = -(-before.count // products)

        def between(number: Expr) -> None:
            def some() -> None:
                loop(each, lambda k: before.emit(least(number * each + k, before.count - 1)))

            if (products - 1) * each < before.count:
                some()
            else:
                with T.If(number * each < before.count), T.Then():
                    some()

        multiply(i + 1, between)

    def all_of_them() -> None:
        multiply(0)
        if not isinstance(many, int) or many > 1:
            loop(many - 1, both)
        last = pieces(many - 1)
        loop(last.count, last.emit)

    if isinstance(many, int):
        all_of_them()
    else:
        with T.If(many > 0), T.Then():
            all_of_them()


def least(a: Expr, b: int) -> Expr:
    return min(a, b) if isinstance(a, int) else T.min(a, b)


def _lines(plan: TilePlan, block: Expr) -> list[tuple[Expr, Expr, Expr]]:
    """(image, row, column) of the first pixel of each line of a block."""
    first = _first_line(plan, block)
    return [_first_pixel(plan, first + line) for line in range(plan.lines)]


def _first_line(plan: TilePlan, block: Expr) -> Expr:
    first = block * plan.lines
    return least(first, plan.all_lines - plan.lines) if plan.all_lines % plan.lines else first


def _first_pixel(plan: TilePlan, line: Expr) -> tuple[Expr, Expr, Expr]:
    height, width = plan.conv.out
    b, row, segment = unravel(line, (plan.conv.batch, height, plan.segments))
    start = segment * plan.rows
    return b, row, least(start, width - plan.rows) if plan.segments * plan.rows > width else start


@dataclass(frozen=True)
class _Ends:
    """What is done with the sums in memory, which are those of block `number` of channels."""

    group: _Group
    number: Expr
    scales: Sequence[Held]

    def pieces(self, block: Expr) -> Pieces:
        """A few pixels each of a block."""
        plan = self.group.plan
        size = _together(plan.rows, self.group.vectors)
        per_line = -(-plan.rows // size)
        first = T.bind(_first_line(plan, block)) if not isinstance(block, int) else _first_line(plan, block)

        def piece(number: Expr) -> None:
            line, part = (number // per_line, number % per_line) if isinstance(number, int) else (
                T.floordiv(number, per_line), T.floormod(number, per_line),
            )  # fmt: skip
            start = least(part * size, plan.rows - size) if plan.rows % size else part * size
            self._finish(_first_pixel(plan, first + line), line * plan.rows, start, size)

        return Pieces(plan.lines * per_line, piece)

    def _finish(self, at: tuple[Expr, Expr, Expr], line: Expr, start: Expr, size: int) -> None:
        """Requantize and store the pixels from `start` on of a line."""
        group, plan, lanes = self.group, self.group.plan, self.group.plan.kernel.columns
        output = Output(plan.conv.co, lanes, group.bounds, whole=plan.vectors >= plan.all_vectors)
        b, row, x0 = at

        def offsets(border: Padding) -> list[Expr]:
            return [plan.conv.pixel(b, row, x0 + start + p, border) for p in range(size)]

        pixel = group.sums.pixel
        source = T.bind((line + start) * pixel)

        def values(p: int) -> list[Expr]:
            return [
                T.bind(group.memory.load(source + p * pixel + v * lanes, lanes)) for v in range(group.vectors)
            ]

        tail = place(group.followers, group.tensors.arrays, offsets)
        store_tile(
            [values(p) for p in range(size)], self.scales, group.tensors.y, offsets(plan.conv.border),
            self.number * plan.vectors, output, group.unit, tail,
        )  # fmt: skip


def _together(rows: int, vectors: int) -> int:
    """Pixels that are finished at once: as few as fill whole vectors of int8, if there are so many."""
    return min(next(n for n in range(1, _STORED_VECTORS + 1) if n * vectors % _STORED_VECTORS == 0), rows)
