"""The tiles of the descriptor: which one a product gets, how blocks walk over them, and their code."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from hwptq.kernels.cuda.operand import INT8
from hwptq.kernels.cuda.tiling import Problem, Tiling, candidates, choose, nanoseconds
from hwptq.kernels.cuda.wgmma import wgmma_kernel
from hwptq.kernels.cuda.wgmma_places import Places
from hwptq.kernels.cuda.wgmma_store import Epilogue
from hwptq.targets import load_target
from hwptq.targets.templates.wgmma import WgmmaTile

KERNEL = load_target("nvidia-hopper-fp8").kernels["wgmma"]
REGISTERS = {2: 232, 3: 160}  # warpgroups that multiply -> of a thread of theirs


def dense(rows: int, outputs: int, depth: int, promote: int = 128) -> Problem:
    return Problem((1, 1, rows, depth), outputs, out_shape=(1, rows), promote=promote)


def only(tile: WgmmaTile, problem: Problem, blocks: int = 132) -> Tiling:
    return next(candidates(problem, replace(KERNEL, tiles=(tile,), multiprocessors=blocks)))


def fitting(tile: WgmmaTile) -> Problem:
    return dense(1000, 576, 640, 128 if tile.promoted else 0)


@pytest.mark.parametrize("tile", KERNEL.tiles)
def test_sums_fit_the_registers(tile: WgmmaTile) -> None:
    partial = (2 if tile.pairs else 1) * tile.columns // 2 if tile.promoted else 0
    sums = tile.strips * tile.columns // 2 + partial
    assert sums <= REGISTERS[tile.warpgroups] - 32  # addresses, and what the end of a tile needs


@pytest.mark.parametrize("promote", [0, 128])
def test_every_depth_has_a_tile(promote: int) -> None:
    for outputs in (1, 10, 64, 100, 1000):
        for channels in (16, 32, 48, 64, 80, 128, 144, 512):
            for kernel in ((1, 1), (3, 3)):
                problem = Problem((1, 9, 9, channels), outputs, kernel, out_shape=(9, 9), promote=promote)
                assert choose(problem, KERNEL).columns <= -(-outputs // 64) * 64
    assert choose(Problem((1, 9, 9, 64), 64, (3, 3), out_shape=(9, 9), promote=0, operand=INT8), KERNEL)


def test_which_tile_is_taken() -> None:
    """What each kind of product is cut into; one too small for the device is cut finely."""
    taken = {
        dense(4096, 4096, 4096, 0): ("in_turn", 128, 128),
        dense(4096, 4096, 4096): ("together", 128, 128),  # its steps in pairs
        dense(8192, 8192, 8192): ("together", 192, 128),
        dense(25216, 768, 3072): ("together", 192, 128),
        dense(25216, 768, 768): ("apart", 128, 128),
        dense(100352, 256, 64): ("in_turn", 128, 128),  # too short to promote
        dense(49, 2048, 512): ("apart", 64, 64),
    }
    for problem, expected in taken.items():
        t = choose(problem, KERNEL)
        assert (t.tile.sharing, t.rows, t.columns) == expected
        assert nanoseconds(t) == min(nanoseconds(other) for other in candidates(problem, KERNEL))


def test_time_is_that_of_the_busiest_block() -> None:
    tile = replace(KERNEL.tiles[0], columns=64, strips=1, step_ns=100, alone_ns=70, end_ns=10, promoted=False)
    assert nanoseconds(only(tile, dense(64 * 9, 64, 256, 0), blocks=4)) == 3 * (2 * 100 + 10)
    assert nanoseconds(only(tile, dense(64 * 4, 64, 256, 0), blocks=4)) == 2 * 70 + 10


@pytest.mark.parametrize("tile", KERNEL.tiles)
def test_warpgroups_visit_every_tile_once(tile: WgmmaTile) -> None:
    t = only(tile, fitting(tile), blocks=3)
    at_tile = Places(t)
    every = 1 if t.together else 2
    indices = [
        block + (turn * every + group) * t.blocks
        for block in range(t.blocks)
        for group in range(every)
        for turn in range(-(-at_tile.rounds // every))
    ]
    visited = [tuple(int(i) for i in at_tile.tile(n)) for n in indices if n < at_tile.tiles]
    rows, columns = at_tile.row_tiles, t.grid[3]
    assert Counter(visited) == Counter((r, c) for r in range(rows) for c in range(columns))


@pytest.mark.parametrize("tile", KERNEL.tiles)
def test_generated_code(tile: WgmmaTile) -> None:
    """Products of the width of the tile in unrolled loops; named barriers only where warpgroups need them."""
    t = only(tile, fitting(tile))
    text = wgmma_kernel(t, Epilogue("float8_e4m3fn", 0.0, 448.0), t.problem.images, (1000, 576)).script()
    products = [line for line in text.splitlines() if "T.ptx.wgmma(" in line and "mma_async" in line]
    assert len(products) == (3 if tile.pairs else 1)  # even and odd steps, and the last of five
    assert f"m64n{tile.columns}k32" in products[0]
    bars = [line for line in text.splitlines() if "T.ptx.bar(" in line]
    assert sum('"sync"' in b for b in bars) == {"together": 0, "in_turn": 2, "apart": 1}[tile.sharing]
    assert sum('"arrive"' in b for b in bars) == {"together": 0, "in_turn": 3, "apart": 1}[tile.sharing]
