"""Which tile of pixels x vectors of channels a convolution is computed by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .convolution import Convolution
from .mac import Mac
from .pack_weights import vector_count
from .register_tile import Tile
from .store_rows import NARROWED
from .vector_blocks import blocks, even

_LOAD_COST = 0.2  # of a multiply-accumulate


def fit(
    conv: Convolution, mac: Mac, tile: Tile, dense_vectors: int, interleaved: bool = False, choice: int = 0
) -> Tile:
    """The tile for a shape; a `choice` above 0 is the next best one: see `tiles`."""
    found = tiles(conv, mac, tile, dense_vectors, interleaved)
    return found[min(choice, len(found) - 1)]


def tile_beside_one(
    conv: Convolution, mac: Mac, tile: Tile, dense_vectors: int, interleaved: bool = False, choice: int = 0
) -> tuple[Tile, int]:
    """The best tile for pixels whose weights are packed as for one pixel, and the vectors that are packed
    together there; `choice`: of that one's tiles. Interleaved pixels take as many vectors at once."""
    together = fit(replace(conv, out=(1, 1)), mac, tile, dense_vectors, False, choice).vectors
    if not interleaved:
        best = fit(conv, mac, tile, dense_vectors)
        return Tile(best.pixels, min(best.vectors, together)), together
    pixels = even(conv.out[1], max(1, tile.pixels * tile.vectors // together))
    return Tile(-(-pixels // mac.rows) * mac.rows, together), together


def tiles(conv: Convolution, mac: Mac, tile: Tile, dense_vectors: int, interleaved: bool) -> list[Tile]:
    """Tiles for a shape: the best within the registers of `tile`, then others that may be better.

    Of interleaved pixels they take whole instructions. What counts is the work, with that of overlapping
    parts, and the loads for each multiply-accumulate; what it leaves out, a measurement shows.
    """
    vectors = vector_count(conv.co, mac.lanes)
    columns, registers = conv.out[1], tile.pixels * tile.vectors
    if columns == 1:
        sizes = (dense_vectors, 2 * dense_vectors, -(-dense_vectors // 2))
        return _distinct(Tile(1, even(vectors, v)) for v in sizes)

    def whole(pixels: int) -> int:
        return -(-pixels // mac.rows) * mac.rows

    if interleaved:  # as many vectors as can be: their results are narrowed together
        most = min(tile.vectors, vectors)
        return _distinct(Tile(whole(even(columns, registers // v)), v) for v in (most, -(-most // 2)))

    def of_registers(count: int, v: int) -> Tile:
        return Tile(even(columns, max(count // v, 1)), min(v, vectors))

    choices = [of_registers(registers, v) for v in range(1, min(tile.vectors, vectors) + 1)]
    more = [of_registers(r, v) for r in (registers, 2 * registers) for v in (tile.vectors + 1, tile.vectors)]
    if mac.rows > 1:
        choices, more = _windows_in_registers(conv, mac, tile, vectors), []
    activation, weight = _load_costs(mac)

    def cost(choice: Tile) -> float:
        parts = blocks(vectors, choice.vectors)
        work = sum(count * (size + weight * size / choice.pixels + activation) for _, count, size in parts)
        return work * -(-columns // choice.pixels) * whole(choice.pixels)

    best, *others = sorted(choices, key=cost)
    return _distinct([best, *more, *others])


def row_pixels(columns: int, usual: int) -> list[int]:
    """Pixels of a row of `columns` that a depthwise kernel takes at once: the usual number, then others."""
    return list(dict.fromkeys(even(columns, most) for most in (usual, 2 * usual, max(1, usual // 2))))


def _distinct(found: Iterable[Tile]) -> list[Tile]:
    return list(dict.fromkeys(found))


def _windows_in_registers(conv: Convolution, mac: Mac, tile: Tile, vectors: int) -> list[Tile]:
    """Tiles of windows for `mac.rows` pixels an instruction: each pixel is loaded to a register of its own.

    Together with the accumulators and weights that is at most what the largest tile of interleaved pixels
    takes. Vectors come in as many as are narrowed together.
    """
    lines, together = tile.pixels // mac.rows, max(1, NARROWED // (mac.rows * mac.lanes))
    most = lines * tile.vectors + min(lines, tile.vectors) + 2
    return [
        Tile(pixels, v)
        for v in range(1, min(vectors, most) + 1)
        if v % together == 0 or v == vectors
        for pixels in range(1, conv.out[1] + 1)
        if pixels == even(conv.out[1], pixels) and -(-pixels // mac.rows) * (v + mac.rows) + v <= most
    ] or [Tile(1, 1)]


def _load_costs(mac: Mac) -> tuple[float, float]:
    """Of an operand of activations and one of weights, in multiply-accumulates.

    Where an instruction has several rows, a window is loaded and shuffled, and one load fills two registers.
    """
    return (_LOAD_COST, _LOAD_COST) if mac.rows == 1 else (2.0, 0.5 * mac.rows)
