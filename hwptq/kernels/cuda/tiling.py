"""How a product is cut into tiles for the tensor cores: every product is seen as a convolution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product as pairs
from math import prod

from hwptq.targets.kernel_tables import WgmmaKernel

from .operand import E4M3, Operand

ROWS = 128  # output rows of a tile: two warpgroups with 64 each
PERMUTED = 64  # columns of the weights that are permuted among themselves
_PROMOTED = 128  # columns at most where sums take twice the registers
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
    """The tiles of a Problem: `columns` output channels, `chunk` channels of a tap at a time."""

    problem: Problem
    columns: int
    chunk: int
    stages: int
    blocks: int  # of a persistent grid
    group: int  # rows of tiles that are walked together, for the cache
    box: tuple[int, int, int]  # images, rows and columns of pixels in a tile

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
        return round_up(self.problem.outputs, PERMUTED)

    @property
    def weight_depth(self) -> int:
        return self.steps * self.chunk

    @property
    def promote_steps(self) -> int:
        """Chunks after which sums are promoted; 0 = never."""
        return self.problem.promote // self.chunk


def round_up(value: int, unit: int) -> int:
    """The next multiple of `unit`."""
    return -(-value // unit) * unit


def candidates(problem: Problem, kernel: WgmmaKernel) -> Iterator[Tiling]:
    """Every tiling that fits the device, narrowest columns last."""
    chunk = _chunk(problem)
    for columns in kernel.columns:
        if columns > round_up(problem.outputs, PERMUTED) or (problem.promote and columns > _PROMOTED):
            continue
        stage = (ROWS + columns) * chunk * problem.operand.bytes
        stages = min(kernel.stages, (kernel.shared_memory - 2048) // stage)
        base = Tiling(problem, columns, chunk, stages, 1, 8 if problem.taps == 1 else 1, _box(problem))
        yield replace(base, blocks=min(kernel.multiprocessors, prod(base.grid)))


def choose(problem: Problem, kernel: WgmmaKernel) -> Tiling:
    """The tiling with the fewest rounds of blocks, weighted by the work of a tile; wide columns win ties."""
    return min(candidates(problem, kernel), key=lambda t: (_rounds(t, kernel), -t.columns))


def _rounds(tiling: Tiling, kernel: WgmmaKernel) -> float:
    """Time of the slowest block, in columns: narrow tiles pay for loading the rows more often."""
    return -(-prod(tiling.grid) // kernel.multiprocessors) * (tiling.columns + 32)


def _chunk(problem: Problem) -> int:
    """Channels per step: the widest that divides those of a tap, and after which promotion can come."""
    depth = round_up(problem.images[3], problem.step)
    for chunk in (width // problem.operand.bytes for width in sorted(_SWIZZLES, reverse=True)):
        fits = depth % chunk == 0 or (problem.taps == 1 and depth > chunk)
        if fits and problem.promote % chunk == 0:
            return chunk
    raise ValueError(f"no chunk of channels fits {problem}")


def _box(problem: Problem) -> tuple[int, int, int]:
    """The box of at most ROWS pixels that covers the output with the fewest boxes, wide ones first."""
    n, (oh, ow) = problem.images[0], problem.out_shape
    best = (0, 0, 0)
    best_key: tuple[int, int] | None = None
    for width, height in pairs(range(1, min(ow, ROWS) + 1), range(1, min(oh, ROWS) + 1)):
        if width * height > ROWS or width * problem.strides[1] > 256 or height * problem.strides[0] > 256:
            continue
        whole = (height, width) == (oh, ow) and problem.groups_of_weights == 1
        depth = max(1, min(n, ROWS // (width * height))) if whole else 1
        count = -(-ow // width) * -(-oh // height) * -(-n // depth)
        if best_key is None or (count, -width) < best_key:
            best_key, best = (count, -width), (depth, height, width)
    return best
