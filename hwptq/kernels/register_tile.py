"""A convolution whose accumulators, a tile of pixels x vectors of channels, stay in registers.

The loops are the same for every multiply-accumulate instruction; `Mac` (mac.py) says what one does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import (
    WHOLE,
    Expr,
    Flat,
    Part,
    Parts,
    cast,
    constant,
    in_parts,
    loop,
    nest,
    powers,
    shuffle,
    start_of,
    unravel,
)
from hwptq.tir.kernel import TensorType
from hwptq.tir.layout import Padding
from hwptq.tir.requantize import Bounds
from hwptq.tir.stored import Stored
from hwptq.tir.vector_unit import VectorUnit

from .cells import Output
from .convolution import Convolution
from .epilogue import Follower, place
from .gather_bytes import gathered
from .halfword_sums import begin_lower, both
from .mac import Mac
from .pack_groups import factor_rows
from .pack_weights import stored_rows, vector_count
from .store_rows import store_rows
from .store_tile import store_tile
from .sums import Apart, sums
from .vector_blocks import Turns, each_tile


@dataclass(frozen=True)
class Tile:
    """Output pixels x vectors of output channels."""

    pixels: int
    vectors: int


@dataclass(frozen=True)
class Plan:
    """A convolution with the instruction and the tile that compute it.

    `interleaved`: x comes from interleave_pixels, so that a load is the activation operand of `mac.rows`
    pixels; the convolution is then pointwise, on one row of pixels.
    """

    conv: Convolution
    mac: Mac
    tile: Tile
    weight_bits: int = 8
    interleaved: bool = False
    compact: bool = False  # surplus lanes are not stored: they read what follows
    weight_group: int = 0  # elements of a run that share a factor of their int4 weights; 0 = no factors
    gathered: bool = False  # a window is one run, whose elements are gathered
    packed: int = 0  # vectors whose weights are packed together; 0 = those of a tile
    lower: int = 0  # elements from the upper bytes of int16 activations to the lower ones; 0 = x is whole
    shortened: int = 0  # bits that the sums of both are shortened by

    @property
    def runs(self) -> tuple[int, int]:
        """Of a window, vertically and horizontally."""
        return (1, 1) if self.gathered else self.conv.runs

    @property
    def run(self) -> int:
        """Elements of a run."""
        return prod(self.conv.kernel) * self.conv.ci if self.gathered else self.conv.run

    @property
    def vectors(self) -> int:
        """Vectors of output channels."""
        return vector_count(self.conv.co, self.mac.lanes)

    @property
    def together(self) -> int:
        """Vectors of output channels whose packed weights take turns: those of a tile, or of several."""
        return self.packed or self.tile.vectors

    @property
    def cells(self) -> int:
        """int32 values of an accumulator."""
        return self.mac.rows * self.mac.lanes

    @property
    def row_pixels(self) -> int:
        """Pixels of an output row, with those that fill the last instruction of interleaved ones."""
        rows = self.mac.rows if self.interleaved else 1
        return -(-self.conv.out[1] // rows) * rows

    @property
    def writes_once(self) -> bool:
        """Whether no value of the result is computed twice, for tiles or vectors that overlap."""
        return (
            self.mac.rows == 1
            and self.conv.co % self.mac.lanes == 0
            and self.row_pixels % self.tile.pixels == 0
        )

    @property
    def stored_lanes(self) -> int:
        """Lanes of a vector of weights or factors that are stored."""
        return min(self.conv.co, self.mac.lanes) if self.compact else self.mac.lanes

    @property
    def stored_rows(self) -> int:
        """Rows of packed weights for each vector of channels."""
        return prod(self.runs) * stored_rows(self.mac.groups_of(self.run), self.weight_bits)

    @property
    def factors(self) -> int:
        """Factors of int4 weights for each output channel."""
        return prod(self.runs) * -(-self.run // self.weight_group) if self.weight_group else 0

    def tensors(self, x: TensorType, out: TensorType) -> list[TensorType]:
        """Types of the parameters: x, packed weights, bias, multiplier and shift (or scale), out."""
        lanes = self.stored_lanes
        rows = self.vectors * self.stored_rows + factor_rows(self.vectors * self.factors, self.mac.k)
        weight = TensorType((rows, lanes * self.mac.k), "int8")
        scales = ("float32",) if out.dtype == "float32" else ("int32", "int32")
        channels = self.vectors * lanes
        biases = 2 * self.vectors * self.mac.lanes if self.lower else channels
        return [x, weight, TensorType((biases,), "int32"), *(TensorType((channels,), d) for d in scales), out]


def emit_tiled(
    plan: Plan, bounds: Bounds | None, out: TensorType, unit: VectorUnit, parts: Parts = WHOLE,
    followers: Sequence[Follower] = (),
) -> Callable[..., None]:  # fmt: skip
    """Code of (x packed, weights packed, bias, multiplier, shift, …, y); see pack_input and pack_weights.

    Without bounds y is float32, and a float32 scale stands for multiplier and shift. Before y are the
    parameters of the followers.

    Each of `parts` takes some of the pixels, and the tile between two of them for some channels, so that none
    waits long for another.
    """
    conv, mac = plan.conv, plan.mac
    size = plan.tile.pixels
    tiles = (conv.batch, conv.out[0], -(-plan.row_pixels // size))
    output = Output(conv.co, mac.lanes, bounds, whole=plan.tile.vectors >= plan.vectors)

    def emit(x: Flat, weight: Flat, bias: Flat, *rest: Flat) -> None:
        count = 1 if bounds is None else 2
        scales, arrays, y = rest[:count], rest[count:-1], rest[-1]

        def tile(turns: Turns, vectors: int, b: Expr, row: Expr, t: Expr) -> None:
            x0, v0 = start_of(t, size, plan.row_pixels), turns.first + turns.at
            windows, lines = _windows(plan, b, row, x0), -(-size // mac.rows)
            acc = accumulators(mac, lines, vectors, bias, v0 + plan.vectors if plan.lower else v0)
            reduce_windows(plan, acc, x, windows, weight, turns)
            values = _held(plan, acc)
            if plan.lower:
                values = _with_lower(plan, acc, x, windows, weight, turns, bias)

            def pixels(border: Padding) -> list[Expr]:
                return [conv.pixel(b, row, real_pixel(plan, x0 + i), border) for i in range(size)]

            tail = place(followers, arrays, pixels)
            store = store_tile if mac.rows == 1 else store_rows
            store(values, scales, y, pixels(conv.border), v0, output, unit, tail)

        def block(part: Part, number: Expr, turns: Turns, vectors: int) -> None:
            if part.count == 1:
                nest(tiles, lambda *at: tile(turns, vectors, *at))
                return
            first, count = part.of(prod(tiles), turn=number)
            loop(count, lambda i: tile(turns, vectors, *unravel(first + i, tiles)))

        border = Stored(y, out).border(unit)

        def part(own: Part) -> None:
            if border:
                border[1](*own.of(border[0]))
            each_tile(plan.vectors, plan.together, plan.tile.vectors, partial(block, own))

        in_parts(prod(tiles) * -(-plan.vectors // plan.tile.vectors), parts, part)

    return emit


def real_pixel(plan: Plan, pixel: Expr) -> Expr:
    """The output pixel of an interleaved one: those beyond the last repeat it."""
    last = plan.conv.out[1] - 1
    return pixel if plan.row_pixels == last + 1 else T.min(pixel, last)


def accumulators(mac: Mac, lines: int, vectors: int, bias: Flat, v0: Expr) -> list[list[Flat | Apart]]:
    """[line][vector] of int32[rows][lanes], each row the bias of its channels."""
    cells = mac.rows * mac.lanes
    acc = [[sums(cells, mac.apart) for _ in range(vectors)] for _ in range(lines)]
    for j, start in enumerate(_biases(mac, vectors, bias, v0)):
        for line in acc:
            line[j].store(0, start, cells)
    return acc


def _biases(mac: Mac, vectors: int, bias: Flat, v0: Expr) -> list[Expr]:
    """Of `vectors` from v0: the bias of a row's channels, for all rows."""
    rows = [T.bind(bias.load((v0 + j) * mac.lanes, mac.lanes)) for j in range(vectors)]
    every = range(mac.rows * mac.lanes)
    return rows if mac.rows == 1 else [T.bind(shuffle([row] * mac.rows, every)) for row in rows]


def _held(plan: Plan, acc: Sequence[Sequence[Flat | Apart]]) -> list[list[Expr]]:
    return [[cell.load(0, plan.cells) for cell in line] for line in acc]


def _with_lower(
    plan: Plan, acc: Sequence[Sequence[Flat | Apart]], x: Flat, windows: list[Expr], weight: Flat,
    turns: Turns, bias: Flat,
) -> list[list[Expr]]:  # fmt: skip
    """The sums over all of x, of which `acc` holds those over upper bytes."""
    start = _biases(plan.mac, len(acc[0]), bias, turns.first + turns.at)
    upper = [begin_lower(line, start, plan.cells, plan.shortened) for line in acc]
    reduce_windows(plan, acc, x.behind(plan.lower), windows, weight, turns)
    lower = _held(plan, acc)
    return [both(*lines, plan.cells, plan.shortened) for lines in zip(lower, upper, strict=True)]


def _windows(plan: Plan, b: Expr, row: Expr, x0: Expr) -> list[Expr]:
    """Where in x the window of each pixel of a tile begins.

    The last line may have fewer pixels than rows: it computes its last pixel twice.
    """
    size, rows = plan.tile.pixels, plan.mac.rows
    return [plan.conv.window(b, row, x0 + min(i, size - 1)) for i in range(-(-size // rows) * rows)]


def reduce_windows(
    plan: Plan, acc: Sequence[Sequence[Flat | Apart]], x: Flat, sources: list[Expr], weight: Flat,
    turns: Turns,
) -> None:  # fmt: skip
    """acc[line][vector] += all products of their windows."""
    conv, mac = plan.conv, plan.mac
    rows, columns = plan.runs
    groups = mac.groups_of(plan.run)
    per_run = stored_rows(groups, plan.weight_bits)
    step = max(mac.groups, mac.unroll, 8 // plan.weight_bits) * (2 if plan.interleaved else 1)
    if plan.weight_group:  # its factors are loaded once
        step = plan.weight_group // mac.k
    if plan.gathered:  # each group has offsets of its own
        step = groups + groups % (8 // plan.weight_bits)
    vectors, stored, cells = len(acc[0]), plan.stored_lanes * mac.k, mac.rows * mac.lanes
    first_row = turns.first * plan.stored_rows + turns.at

    def groups_at(run: Expr, tap: Expr, at: Expr, count: int) -> None:
        """`count` groups of k elements from group `at` of a run; `at` is a multiple of `step`."""
        row = run * per_run + (at if plan.weight_bits == 8 else T.floordiv(at, 2))
        factors = _factors(plan, weight, turns, run, at, vectors) if plan.weight_group else []
        first = (first_row + row * turns.size) * stored
        weights = _weight_operands(plan, weight, first, vectors, turns.size, factors)
        done = 0
        for part in powers(count, mac.groups):
            activations = _activation_operands(plan, x, sources, tap, at + done, part)
            for u in range(part):
                operands = weights(done + u)
                for i, line in enumerate(acc):
                    activation = activations(i, u)
                    for cell, operand in zip(line, operands, strict=True):
                        _accumulate(mac, cell, activation, operand, cells)
            done += part

    def run(ky: Expr, kx: Expr) -> None:
        number, tap = ky * columns + kx, conv.tap(ky, kx)
        full, rest = divmod(groups, step)
        if full:
            loop(full, lambda i: groups_at(number, tap, i * step, step))
        if rest:
            groups_at(number, tap, full * step, rest)

    nest((rows, columns), run)


def _accumulate(mac: Mac, cell: Flat | Apart, activation: Expr, weight: Expr, cells: int) -> None:
    """One instruction, or one for each lane."""
    if isinstance(cell, Flat):
        cell.store(0, mac.accumulate(cell.load(0, cells), activation, weight), cells)
        return
    for i, lane in enumerate(cell.lanes):
        own = shuffle([weight], range(i * mac.k, (i + 1) * mac.k))
        lane.store(0, mac.accumulate(lane.load(0), activation, own))


def _activation_operands(
    plan: Plan, x: Flat, sources: list[Expr], tap: Expr, group: Expr, count: int
) -> Callable[[int, int], Expr]:
    """(line, u) -> the activation operand of a line of pixels, of group u of `count` from `group`."""
    mac = plan.mac
    if plan.interleaved:
        size, image = mac.rows * mac.k, plan.row_pixels * mac.k
        return lambda line, u: T.bind(x.load(sources[line] + (group + u) * image, size))
    if plan.gathered:
        offsets = window_offsets(plan.conv)[group * mac.k : (group + count) * mac.k]
        loaded = [gathered(mac.gather, mac.k, x, s, offsets) for s in sources]
    else:
        loaded = [T.bind(x.load(s + tap + group * mac.k, count * mac.k)) for s in sources]
    return lambda line, u: mac.pick(loaded[line * mac.rows : (line + 1) * mac.rows], u, count)


def window_offsets(conv: Convolution) -> np.ndarray:
    """Of all elements of a window from its first one on, in the order of its weights."""
    taps = [conv.tap(ky, kx) for ky, kx in np.ndindex(*conv.kernel)]
    return (np.array(taps)[:, np.newaxis] + np.arange(conv.ci)).reshape(-1)


def _factors(plan: Plan, weight: Flat, turns: Turns, run: Expr, at: Expr, vectors: int) -> list[Expr]:
    """For each vector of channels the factors of the weights at group `at` of a run: see pack_groups.

    int8 [lanes * k], the factor of a channel beside each of its weights.
    """
    mac, lanes = plan.mac, plan.stored_lanes
    per_run = plan.factors // prod(plan.runs)
    row = run * per_run + T.floordiv(at * mac.k, plan.weight_group)
    place = turns.first * plan.factors + row * turns.size + turns.at
    first = plan.vectors * plan.stored_rows * lanes * mac.k + place * lanes
    order = [i // mac.k for i in range(mac.lanes * mac.k)]
    loaded = [T.bind(weight.load(first + j * lanes, mac.lanes)) for j in range(vectors)]
    return [T.bind(shuffle([factors] * mac.k, order)) for factors in loaded]


def _weight_operands(
    plan: Plan, weight: Flat, first: Expr, vectors: int, together: int, factors: list[Expr]
) -> Callable[[int], list[Expr]]:
    """group -> the weight operand of each vector of channels; call it for 0, 1, 2, ... in this order.

    `first` is the offset of group 0; so many vectors take turns `together`. Of two int4 groups in a row, the
    first one loads. `factors`: of each vector of channels, if there are any.
    """
    packed: list[Expr] = []
    mac, bits = plan.mac, plan.weight_bits
    width, stored = mac.lanes * mac.k, plan.stored_lanes * mac.k

    def operands(group: int) -> list[Expr]:
        row = group * bits // 8 * together
        if bits == 8 or group % 2 == 0:
            packed[:] = [T.bind(weight.load(first + (row + j) * stored, width)) for j in range(vectors)]
        values = [_nibble(p, group % 2, width) for p in packed] if bits == 4 else packed
        if factors:
            four = constant(4, "int8", width)
            values = [T.shift_right(v, four) * f for v, f in zip(values, factors, strict=True)]
        return [T.bind(cast(value, mac.weight, width)) for value in values]

    return operands


def _nibble(packed: Expr, index: int, width: int) -> Expr:
    """16 times the int4 value in the lower (0) or upper (1) nibble of each byte."""
    if index == 0:
        return T.shift_left(packed, constant(4, "int8", width))
    return T.bitwise_and(packed, constant(-16, "int8", width))
