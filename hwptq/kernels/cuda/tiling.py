"""How a product is cut into tiles for the tensor cores: every product is seen as a convolution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product as pairs
from math import prod

from hwptq.targets.templates.wgmma import WgmmaKernel, WgmmaTile

from .operand import E4M3, Operand

STRIP = 64  # rows of an instruction
COLUMNS = 64  # the columns of a tile are a multiple of it
_BARRIERS = 2048  # bytes of shared memory that are no stages
STORE = 16  # bytes that a thread stores at once
_SWIZZLES = {32: 1, 64: 2, 128: 3}  # bytes of a row in shared memory -> CUtensorMapSwizzle


@dataclass(frozen=True)
class Problem:
    """x [N,H,W,C] with w [G,O,KH*KW*C'] -> [N,OH,OW,O].

    A dense layer over M rows is the 1x1 convolution of one image [1,1,M,C]; a batched product has one image
    and one set of weights (G) per batch.
    """

    images: tuple[int, int, int, int]  # N, H, W, C
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)  # top, left
    dilation: tuple[int, int] = (1, 1)
    out_shape: tuple[int, int] = (1, 1)  # OH, OW
    groups_of_weights: int = 1  # 1, or N
    promote: int = 128  # products after which sums become float32; 0 = never
    operand: Operand = E4M3
    out_bytes: int = 1  # of an element of the output
    table: int = 0  # bytes of shared memory beside the stages

    @property
    def promoted(self) -> bool:
        """Whether sums are promoted before the last product; afterwards that changes nothing but a -0."""
        return 0 < self.promote < self.depth

    @property
    def width(self) -> int:
        """Neighbouring channels that a thread stores in one piece."""
        return STORE // self.out_bytes

    @property
    def step(self) -> int:
        """Products per instruction."""
        return self.operand.step

    @property
    def taps(self) -> int:
        return prod(self.kernel)

    @property
    def rows(self) -> int:
        """Pixels of the output."""
        return self.images[0] * prod(self.out_shape)

    @property
    def depth(self) -> int:
        """Products per output, as the accumulator counts them."""
        return self.taps * round_up(self.images[3], self.step)


@dataclass(frozen=True)
class Tiling:
    """The tiles of a Problem, `chunk` channels of a tap at a time."""

    problem: Problem
    tile: WgmmaTile
    chunk: int
    stages: int  # of each ring
    blocks: int  # of a persistent grid
    group: int  # rows of tiles that are walked together, for the cache
    box: tuple[int, int, int]  # images, rows and columns of pixels in a tile

    @property
    def columns(self) -> int:
        """Output channels of a tile."""
        return self.tile.columns

    @property
    def together(self) -> bool:
        """Whether all warpgroups work on one tile."""
        return self.tile.sharing == "together"

    @property
    def readers(self) -> int:
        """Warpgroups that read a stage."""
        return self.tile.warpgroups if self.together else 1

    @property
    def partial_registers(self) -> int:
        """Sums that a thread holds until they are promoted."""
        return self.strip_registers * (2 if self.tile.pairs else 1) if self.promote_steps else 1

    @property
    def rings(self) -> int:
        """Rings of stages: warpgroups that stand apart have one each."""
        return 2 if self.tile.sharing == "apart" else 1

    @property
    def group_rows(self) -> int:
        """Rows of a tile that belong to a warpgroup."""
        return STRIP * self.tile.strips

    @property
    def rows(self) -> int:
        """Rows of a tile."""
        return tile_rows(self.tile)

    @property
    def strip_registers(self) -> int:
        """Sums of a strip that a thread holds."""
        return self.columns // 2

    @property
    def swizzle(self) -> int:
        return _SWIZZLES[self.chunk * self.problem.operand.bytes]

    @property
    def chunks(self) -> int:
        """Steps through the channels of one tap."""
        return -(-round_up(self.problem.images[3], self.problem.step) // self.chunk)

    @property
    def steps(self) -> int:
        return self.problem.taps * self.chunks

    @property
    def grid(self) -> tuple[int, int, int, int]:
        """Tiles over images, rows and columns of pixels, and over output channels."""
        n, (oh, ow) = self.problem.images[0], self.problem.out_shape
        pixels = [-(-extent // size) for extent, size in zip((n, oh, ow), self.box, strict=True)]
        return pixels[0], pixels[1], pixels[2], -(-self.weight_rows // self.columns)

    @property
    def weight_rows(self) -> int:
        """Output channels with those that fill the last group of permuted ones."""
        return round_up(self.problem.outputs, COLUMNS)

    @property
    def weight_depth(self) -> int:
        return self.steps * self.chunk

    @property
    def promote_steps(self) -> int:
        """Chunks after which sums are promoted; 0 = never."""
        return self.problem.promote // self.chunk if self.problem.promoted else 0


def round_up(value: int, unit: int) -> int:
    """The next multiple of `unit`."""
    return -(-value // unit) * unit


def tile_rows(tile: WgmmaTile) -> int:
    """Rows of a tile."""
    return STRIP * tile.strips * (tile.warpgroups if tile.sharing == "together" else 1)


def candidates(problem: Problem, kernel: WgmmaKernel) -> Iterator[Tiling]:
    """Every tiling that fits the problem and the device."""
    chunk = _chunk(problem)
    for tile in kernel.tiles:
        if tile.promoted != problem.promoted or tile.columns > round_up(problem.outputs, COLUMNS):
            continue
        if tile.promoted and tile.strips > 1 and chunk < problem.promote:
            continue  # its strips use the same registers, so each must be promoted at every step
        if tile.pairs and chunk < problem.promote:
            continue
        rows, rings = tile_rows(tile), 2 if tile.sharing == "apart" else 1
        stage = (rows + tile.columns) * chunk * problem.operand.bytes
        room = kernel.shared_memory - _BARRIERS - problem.table
        stages = min(kernel.stages, room // stage) // rings
        group = 8 if problem.taps == 1 else 1
        found = Tiling(problem, tile, chunk, stages, 1, group, _box(problem, rows))
        yield replace(found, blocks=min(kernel.multiprocessors, prod(found.grid)))


def choose(problem: Problem, kernel: WgmmaKernel) -> Tiling:
    """The tiling of the least time, by the costs of the descriptor."""
    return min(candidates(problem, kernel), key=nanoseconds)


def nanoseconds(tiling: Tiling) -> float:
    """Time of the block with the most tiles, as WgmmaTile says."""
    tile = tiling.tile
    bytes_deep = tiling.steps * tiling.chunk * tiling.problem.operand.bytes
    tiles = -(-prod(tiling.grid) // tiling.blocks)
    step = tile.step_ns if tiles > 1 else tile.alone_ns
    return tiles * (bytes_deep / 128 * step + tile.end_ns)


def _chunk(problem: Problem) -> int:
    """Channels per step: the widest that divides those of a tap, and after which promotion can come."""
    depth = round_up(problem.images[3], problem.step)
    for chunk in (width // problem.operand.bytes for width in sorted(_SWIZZLES, reverse=True)):
        fits = depth % chunk == 0 or (problem.taps == 1 and depth > chunk)
        if fits and problem.promote % chunk == 0:
            return chunk
    raise ValueError(f"no chunk of channels fits {problem}")


def _box(problem: Problem, rows: int) -> tuple[int, int, int]:
    """The box of at most `rows` pixels that covers the output with the fewest boxes, wide ones first."""
    n, (oh, ow) = problem.images[0], problem.out_shape
    best = (0, 0, 0)
    best_key: tuple[int, int] | None = None
    for width, height in pairs(range(1, min(ow, rows) + 1), range(1, min(oh, rows) + 1)):
        if width * height > rows or width * problem.strides[1] > 256 or height * problem.strides[0] > 256:
            continue
        whole = (height, width) == (oh, ow) and problem.groups_of_weights == 1
        depth = max(1, min(n, rows // (width * height))) if whole else 1
        count = -(-ow // width) * -(-oh // height) * -(-n // depth)
        if best_key is None or (count, -width) < best_key:
            best_key, best = (count, -width), (depth, height, width)
    return best
