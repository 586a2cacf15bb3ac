"""A pointwise convolution of interleaved pixels: a load of x is the activation operand of `mac.rows` pixels.

The loop over groups of channels is written in assembly language where the descriptor has what it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm.script.ir_builder import tirx as T

from hwptq.targets.schema import Assembly
from hwptq.tir.builder import WHOLE, Expr, Flat, Parts, local, loop, share, shuffle
from hwptq.tir.layout import Padding
from hwptq.tir.requantize import Bounds
from hwptq.tir.vector_unit import VectorUnit

from .assembly_loop import IMPORT, AssemblyLoop
from .cells import Output
from .epilogue import Follower, place
from .register_tile import Plan, accumulators, real_pixel, reduce_windows
from .store_rows import store_rows
from .vector_blocks import Turns, blocks


def emit_interleaved(
    plan: Plan, bounds: Bounds | None, unit: VectorUnit, assembly: Assembly, parts: Parts = WHOLE,
    followers: Sequence[Follower] = (),
) -> Callable[..., None]:  # fmt: skip
    """Code of (x from interleave_pixels, weights packed, bias, multiplier, shift, …, y); see emit_tiled.

    The pixels that fill no tile have one of their own.
    """
    rows, size = plan.mac.rows, plan.tile.pixels
    full, rest = divmod(plan.row_pixels, size)
    output = Output(plan.conv.co, plan.mac.lanes, bounds, whole=plan.tile.vectors >= plan.vectors)
    loops = _assembly_loops(plan, assembly, [size] * (full > 0) + [rest] * (rest > 0))

    def emit(x: Flat, weight: Flat, bias: Flat, *others: Flat) -> None:
        count = 1 if bounds is None else 2
        scales, arrays, y = others[:count], others[count:-1], others[-1]

        def tile(v0: Expr, vectors: int, start: Flat | None, first: Expr, size: int) -> None:
            lines = size // rows
            source = first * plan.mac.k
            if start is None:
                acc = accumulators(plan.mac, lines, vectors, bias, v0)
                sources = [source + i * rows * plan.mac.k for i in range(lines)]
                reduce_windows(plan, acc, x, sources, weight, Turns(v0, vectors))
            else:
                cells = [[local(plan.cells, "int32") for _ in range(vectors)] for _ in range(lines)]
                weights = weight.address(v0 * plan.stored_rows * plan.mac.lanes * plan.mac.k)
                loops[lines, vectors].call(cells, start.address(0), weights, x.address(source))
                acc = [list(line) for line in cells]
            values = [[cell.load(0, plan.cells) for cell in line] for line in acc]

            def pixels(border: Padding) -> list[Expr]:
                return [plan.conv.pixel(0, 0, real_pixel(plan, first + i), border) for i in range(size)]

            tail = place(followers, arrays, pixels)
            store_rows(values, scales, y, pixels(plan.conv.border), v0, output, unit, tail)

        def tiles(first: Expr, count: Expr, size: int) -> None:
            """`count` tiles of `size` pixels from pixel `first`, for all channels."""

            def block(v0: Expr, vectors: int) -> None:
                start = _start(plan, vectors, bias, v0) if loops else None
                loop(count, lambda t: tile(v0, vectors, start, first + t * size, size))

            for number, many, vectors in blocks(plan.vectors, plan.tile.vectors):
                loop(many, lambda c, n=number, v=vectors: block(n + c * v, v))  # type: ignore[misc]

        def all_tiles() -> None:
            if not full:
                tiles(0, 1, rest)
                return
            last = (1, lambda _, count: loop(count, lambda _: tiles(full * size, 1, rest))) if rest else None
            share(full, parts, lambda first, count: tiles(first * size, count, size), last)

        if not loops:
            all_tiles()
            return
        with T.attr({IMPORT: "\n".join(found.definition() for found in loops.values())}):
            all_tiles()

    return emit


def _start(plan: Plan, vectors: int, bias: Flat, v0: Expr) -> Flat:
    """What the accumulators of a line begin with: int32[vectors][rows][lanes], each row the bias."""
    mac, start = plan.mac, local(vectors * plan.cells, "int32")
    for j in range(vectors):
        row = T.bind(bias.load((v0 + j) * mac.lanes, mac.lanes))
        start.store(j * plan.cells, shuffle([row] * mac.rows, range(plan.cells)), plan.cells)
    return start


def _assembly_loops(plan: Plan, assembly: Assembly, sizes: list[int]) -> dict[tuple[int, int], AssemblyLoop]:
    """(lines, vectors) -> the loop of tiles with so many, of `sizes` pixels; none: the compiler makes it.

    Two int4 weights a byte are left to the compiler.
    """
    mac = plan.mac
    if plan.weight_bits != 8 or not mac.assembly or not assembly.registers:
        return {}
    found = {}
    for lines in (size // mac.rows for size in sizes):
        for _, _, vectors in blocks(plan.vectors, plan.tile.vectors):
            found[lines, vectors] = AssemblyLoop(
                assembly,
                mac.assembly,
                cells=plan.cells,
                bytes=mac.rows * mac.k,
                lines=lines,
                vectors=vectors,
                groups=mac.groups_of(plan.conv.ci),
                stride=plan.row_pixels * mac.k,
            )
    return found if all(one.fits for one in found.values()) else {}
