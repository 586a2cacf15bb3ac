"""A convolution whose accumulators, a tile of pixels x vectors of channels, stay in registers.

The loops are the same for every multiply-accumulate instruction; `Mac` says what one does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from hwptq.targets.schema import Requantize

from .builder import Expr, Flat, cast, constant, local, loop, nest, powers, shuffle
from .convolution import Convolution
from .kernel import TensorType
from .pack_weights import stored_rows, vector_count
from .requantize import Bounds
from .store_tile import Output, store_tile

_LOAD_COST = 0.2  # of a multiply-accumulate


@dataclass(frozen=True)
class Mac:
    """acc int32[rows][lanes] += sum over k of activation[row][k] * weight[lane][k]; a row is a pixel.

    `pick(loaded, u, groups)` makes the activation operand from group u of `groups` groups of k elements that
    were loaded at once from each of `rows` pixels; `accumulate(acc, activation, weight)` is the instruction.
    """

    rows: int
    lanes: int
    k: int
    groups: int  # groups of k activations in the widest load, a power of two
    activation: str  # dtype of the packed activations
    weight: str  # dtype of the weight operand; its values are stored as int8, or two int4 a byte
    pick: Callable[[list[Expr], int, int], Expr]
    accumulate: Callable[[Expr, Expr, Expr], Expr]

    def groups_of(self, run: int) -> int:
        """Groups of k in a run."""
        return -(-run // self.k)

    def slack(self, run: int) -> int:
        """Elements that the loads of a run reach beyond it."""
        return self.groups_of(run) * self.k - run


@dataclass(frozen=True)
class Tile:
    """Output pixels x vectors of output channels."""

    pixels: int
    vectors: int


def even(extent: int, most: int) -> int:
    """Size of the parts when `extent` is cut evenly into parts of at most `most`: (6, 4) -> 3."""
    parts = -(-extent // most)
    return -(-extent // parts)


def fit(conv: Convolution, mac: Mac, tile: Tile, dense_vectors: int) -> Tile:
    """The tile for a shape, with at most as many accumulators and vectors as `tile`.

    What counts is the work, with that of overlapping parts, and the loads for each multiply-accumulate.
    """
    vectors = vector_count(conv.co, mac.lanes)
    if conv.out[1] == 1:
        return Tile(1, even(vectors, dense_vectors))
    registers = tile.pixels * tile.vectors
    choices = [Tile(even(conv.out[1], registers // v), v) for v in range(1, min(tile.vectors, vectors) + 1)]

    def cost(choice: Tile) -> float:
        rows = -(-choice.pixels // mac.rows) * mac.rows
        work = -(-vectors // choice.vectors) * choice.vectors * -(-conv.out[1] // choice.pixels) * rows
        return work * (1 + _LOAD_COST * (1 / choice.pixels + 1 / choice.vectors))

    return min(choices, key=cost)


def emit_tiled(
    conv: Convolution, mac: Mac, tile: Tile, bounds: Bounds, target: Requantize, weight_bits: int = 8
) -> Callable[..., None]:
    """Code of (x packed, weights packed, bias, multiplier, shift, y); see pack_input and pack_weights."""
    vectors = vector_count(conv.co, mac.lanes)
    blocks, columns = -(-vectors // tile.vectors), -(-conv.out[1] // tile.pixels)

    def emit(x: Flat, weight: Flat, bias: Flat, multiplier: Flat, shift: Flat, y: Flat) -> None:
        def block(c: Expr, b: Expr, row: Expr, t: Expr) -> None:
            v0 = _start(c, tile.vectors, vectors)
            x0 = _start(t, tile.pixels, conv.out[1])
            cells = mac.rows * mac.lanes
            lines = -(-tile.pixels // mac.rows)
            acc = [[local(cells, "int32") for _ in range(tile.vectors)] for _ in range(lines)]
            for j in range(tile.vectors):
                start = T.bind(bias.load((v0 + j) * mac.lanes, mac.lanes))
                for line in acc:
                    line[j].store(
                        0, start if mac.rows == 1 else shuffle([start] * mac.rows, range(cells)), cells
                    )
            # the last line may have fewer pixels than rows: it computes its last pixel twice
            windows = [conv.window(b, row, x0 + min(i, tile.pixels - 1)) for i in range(lines * mac.rows)]
            _reduce(conv, mac, acc, x, windows, weight, v0, weight_bits)
            values = [_row(acc[i // mac.rows], mac, i % mac.rows) for i in range(tile.pixels)]
            pixels = [conv.pixel(b, row, x0 + i) for i in range(tile.pixels)]
            store_tile(values, (multiplier, shift), y, pixels, v0, Output(conv.co, mac.lanes, bounds), target)

        nest((blocks, conv.batch, conv.out[0], columns), block)

    return emit


def _start(index: Expr, size: int, extent: int) -> Expr:
    """First element of part `index`; the last part overlaps the one before it."""
    return index * size if extent % size == 0 else T.min(index * size, extent - size)


def _reduce(
    conv: Convolution,
    mac: Mac,
    acc: list[list[Flat]],
    x: Flat,
    windows: list[Expr],
    weight: Flat,
    v0: Expr,
    weight_bits: int,
) -> None:
    """acc[pixel][vector] += all products of their windows; `windows` are offsets of pixels in x."""
    rows, columns = conv.runs
    groups = mac.groups_of(conv.run)
    per_run = stored_rows(groups, weight_bits)
    step = max(mac.groups, 8 // weight_bits)
    width, cells = mac.lanes * mac.k, mac.rows * mac.lanes

    def groups_at(run: Expr, tap: Expr, at: Expr, count: int) -> None:
        """`count` groups of k elements from group `at` of a run; `at` is a multiple of `step`."""
        row = run * per_run + (at if weight_bits == 8 else at // 2)
        firsts = [((v0 + j) * rows * columns * per_run + row) * width for j in range(len(acc[0]))]
        operands = _weight_operands(weight, firsts, width, mac.weight, weight_bits)
        done = 0
        for part in powers(count, mac.groups):
            loaded = [T.bind(x.load(w + tap + (at + done) * mac.k, part * mac.k)) for w in windows]
            for u in range(part):
                vectors = operands(done + u)
                for i, line in enumerate(acc):
                    picked = mac.pick(loaded[i * mac.rows : (i + 1) * mac.rows], u, part)
                    for cell, operand in zip(line, vectors, strict=True):
                        cell.store(0, mac.accumulate(cell.load(0, cells), picked, operand), cells)
            done += part

    def run(ky: Expr, kx: Expr) -> None:
        number, tap = ky * columns + kx, conv.tap(ky, kx)
        full, rest = divmod(groups, step)
        if full:
            loop(full, lambda i: groups_at(number, tap, i * step, step))
        if rest:
            groups_at(number, tap, full * step, rest)

    nest((rows, columns), run)


def _weight_operands(
    weight: Flat, firsts: list[Expr], width: int, dtype: str, bits: int
) -> Callable[[int], list[Expr]]:
    """group -> the weight operand of each vector of channels; call it for 0, 1, 2, ... in this order.

    `firsts` are the offsets of group 0. Of two int4 groups in a row, the first one loads.
    """
    packed: list[Expr] = []

    def operands(group: int) -> list[Expr]:
        row = group * bits // 8
        if bits == 8 or group % 2 == 0:
            packed[:] = [T.bind(weight.load(first + row * width, width)) for first in firsts]
        return [T.bind(cast(_nibble(p, group % 2, width) if bits == 4 else p, dtype, width)) for p in packed]

    return operands


def _nibble(packed: Expr, index: int, width: int) -> Expr:
    """16 times the int4 value in the lower (0) or upper (1) nibble of each byte."""
    if index == 0:
        return T.shift_left(packed, constant(4, "int8", width))
    return T.bitwise_and(packed, constant(-16, "int8", width))


def _row(cells: list[Flat], mac: Mac, row: int) -> list[Expr]:
    """The sums of one pixel, a vector of channels from each accumulator."""
    size = mac.rows * mac.lanes
    if mac.rows == 1:
        return [cell.load(0, size) for cell in cells]
    lanes = range(row * mac.lanes, (row + 1) * mac.lanes)
    return [shuffle([cell.load(0, size)], lanes) for cell in cells]


def tensors_of(
    conv: Convolution, mac: Mac, x: TensorType, out: TensorType, weight_bits: int = 8
) -> list[TensorType]:
    """Types of the parameters: x, packed weights, bias, multiplier, shift, out."""
    vectors = vector_count(conv.co, mac.lanes)
    rows = conv.runs[0] * conv.runs[1] * stored_rows(mac.groups_of(conv.run), weight_bits)
    weight = TensorType((vectors, rows, mac.lanes * mac.k), "int8")
    return [x, weight, *[TensorType((vectors * mac.lanes,), "int32")] * 3, out]
