"""How pixels of a depthwise convolution share vectors of gathered elements: see reducing_depthwise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from hwptq.targets.templates.reducing_depthwise import ReducingDepthwiseKernel

from .convolution import Convolution
from .gather_bytes import FARTHEST

_MOST_VECTORS = 8  # of a patch: all are written out
#: Instructions to requantize and store a tile, with the loop, by patches and by vectors of channels.
_END, _PLAIN_END = 14, 9
_PLAIN_TAP = 3  # instructions that a tap of a vector of channels takes: a load, a product, a sum


@dataclass(frozen=True)
class Tiling:
    """The convolution `conv` by tiles of rows x columns of pixels, cut into patches that share elements.

    `k`: elements of a vector.
    """

    conv: Convolution
    tile: tuple[int, int]
    patch: tuple[int, int]
    k: int

    @cached_property
    def elements(self) -> list[tuple[int, int]]:
        """(row, column) of those that the windows of a patch read, from its first one on."""
        conv = self.conv
        axes = [
            sorted({i * stride + tap * step for i in range(pixels) for tap in range(taps)})
            for pixels, stride, step, taps in zip(
                self.patch, conv.strides, conv.dilation, conv.kernel, strict=True
            )
        ]
        return [(row, column) for row in axes[0] for column in axes[1]]

    @property
    def vectors(self) -> int:
        """Of elements of a patch."""
        return -(-len(self.elements) // self.k)

    @property
    def patches(self) -> list[tuple[int, int]]:
        """(row, column) of the first pixel of each patch of a tile."""
        (height, width), (rows, columns) = self.patch, self.tile
        return [(row, column) for row in range(0, rows, height) for column in range(0, columns, width)]

    @property
    def offsets(self) -> list[np.ndarray]:
        """Of the elements of each vector, from the first one of a patch on."""
        line, pixel = self.conv.image[1] * self.conv.ci, self.conv.ci
        places = np.array([row * line + column * pixel for row, column in self.elements])
        return [places[i : i + self.k] for i in range(0, len(places), self.k)]

    def cost(self, resident: int) -> int:
        """Instructions for all pixels of a channel; so many vectors of weights stay in registers."""
        halves = -(-2 * len(self.elements) // self.k)
        loads = max(0, prod(self.patch) * self.vectors - resident)
        sums = len(self.patches) * (halves + self.vectors + loads) + prod(self.tile) * self.vectors
        return (sums + _END) * tiles_of(self.conv, self.tile)

    @cached_property
    def starts(self) -> list[int]:
        """Where in what `pack` makes for a channel the weights of each pixel of a patch begin.

        Weights of a pixel are those of the first one, moved; where they are not, as with strides wider than
        the window, each pixel has its own.
        """
        firsts = [
            self.elements.index((row * self.conv.strides[0], column * self.conv.strides[1]))
            for row, column in np.ndindex(*self.patch)
        ]
        moved = [firsts[-1] - first for first in firsts]
        length = self.vectors * self.k
        taps = self._by_pixel(np.arange(1, prod(self.conv.kernel) + 1).reshape(1, *self.conv.kernel))[0]
        line = np.pad(taps[0], (firsts[-1], 0))
        if all(np.array_equal(line[at : at + length], own) for at, own in zip(moved, taps, strict=True)):
            return moved
        return [pixel * length for pixel in range(len(firsts))]

    @property
    def stored(self) -> int:
        """Bytes that `pack` makes for a channel."""
        return max(self.starts) + self.vectors * self.k

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """int8 [C,KH,KW] -> int8 [C, stored]: the weights of each pixel, from its start on."""
        packed = np.zeros((len(weight), self.stored), np.int8)
        own = self._by_pixel(weight)
        for pixel, start in enumerate(self.starts):
            packed[:, start : start + self.vectors * self.k] |= own[:, pixel].astype(np.int8)
        return packed

    def _by_pixel(self, weight: np.ndarray) -> np.ndarray:
        """[C,KH,KW] -> [C, pixels of a patch, vectors * k], 0 for elements outside of the window."""
        conv = self.conv
        found = np.zeros((len(weight), prod(self.patch), self.vectors * self.k), weight.dtype)
        number = {place: i for i, place in enumerate(self.elements)}
        for pixel, at in enumerate(np.ndindex(*self.patch)):
            for tap in np.ndindex(*conv.kernel):
                row, column = (
                    i * stride + t * step
                    for i, stride, t, step in zip(at, conv.strides, tap, conv.dilation, strict=True)
                )
                found[:, pixel, number[row, column]] = weight[(slice(None), *tap)]
        return found


def tiles_of(conv: Convolution, tile: tuple[int, int]) -> int:
    """Tiles of an image; the last ones overlap those before."""
    return prod(-(-pixels // size) for pixels, size in zip(conv.out, tile, strict=True))


def best_tiling(conv: Convolution, kernel: ReducingDepthwiseKernel, choice: int = 0) -> Tiling | None:
    """The tiling of the fewest instructions, or for a `choice` above 0 another.

    None: vectors of channels take fewer.
    """
    found = sorted(tilings(conv, kernel), key=lambda tiling: tiling.cost(kernel.resident))
    if not found or found[0].cost(kernel.resident) >= _plain_cost(conv, kernel.lanes):
        return None
    return found[min(choice, len(found) - 1)]


def tilings(conv: Convolution, kernel: ReducingDepthwiseKernel) -> list[Tiling]:
    """Those of an image that is as large as a tile, with patches of a few vectors that an offset reaches."""
    sizes = [(rows, kernel.lanes // rows) for rows in _divisors(kernel.lanes)]
    found = [
        Tiling(conv, tile, (height, width), kernel.k)
        for tile in sizes
        for height in _divisors(tile[0])
        for width in _divisors(tile[1])
        if all(size <= pixels for size, pixels in zip(tile, conv.out, strict=True))
    ]
    return [
        tiling
        for tiling in found
        if tiling.vectors <= _MOST_VECTORS and max(o.max() for o in tiling.offsets) <= FARTHEST
    ]


def _divisors(number: int) -> list[int]:
    return [i for i in range(1, number + 1) if number % i == 0]


def _plain_cost(conv: Convolution, lanes: int) -> float:
    """Instructions for a channel by vectors of channels, or one by one where there are too few."""
    together = min(lanes, 1 << (conv.co.bit_length() - 1))
    return prod(conv.out) * (_PLAIN_TAP * prod(conv.kernel) + _PLAIN_END) / together
