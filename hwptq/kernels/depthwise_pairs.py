"""Products of a depthwise window by two: taps of one channel, as the halfwords of a word (Arm's SMLAD).

Taps of two rows make pairs, one below the other, since neighbouring pixels then share what is put together.
The last of an odd number of rows is paired along itself; a tap that is left over meets a weight of 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import Expr, Flat, cast, loop

from .convolution import Convolution

_HALF = 16  # bits
_UNROLLED_TAPS = 8  # taps of a window row that are written out, so that neighbouring pixels share loads


def pack_pairs(taps: np.ndarray) -> np.ndarray:
    """Weights [KH,KW,C] -> int32 [pairs,C], in the order in which `sum_pairs` takes them.

    [[1, 2, 3], [4, 5, 6], [7, 8, 9]] of a channel -> (1, 4), (2, 5), (3, 6), (7, 8), (9, 0).
    """
    kh, kw, channels = taps.shape
    even = taps[: kh // 2 * 2].reshape(kh // 2, 2, kw, channels).swapaxes(1, 2).reshape(-1, 2, channels)
    rest = taps[kh // 2 * 2 :].reshape(-1, channels)
    last = np.pad(rest, ((0, len(rest) % 2), (0, 0))).reshape(-1, 2, channels)
    low, high = np.concatenate([even, last]).astype(np.int32).swapaxes(0, 1)
    return np.ascontiguousarray((low & 0xFFFF) | (high << _HALF))


def sum_pairs(
    conv: Convolution, acc: Sequence[Flat], x: Flat, windows: Sequence[Expr], weight: Flat, at: Expr,
    intrinsic: str,
) -> None:  # fmt: skip
    """acc[pixel] += the products of all taps of channel `at`.

    `windows` are those of neighbouring pixels of a row, without the channel; `weight`: see pack_pairs.
    """
    kh, kw = conv.kernel

    def products(first: Expr, second: Expr | None, number: Expr, words: dict[int, Expr], column: int) -> None:
        """One pair of taps for all pixels; `words`: what was put together before, by column of the image."""
        factor = T.bind(weight.load(number * conv.ci + at))
        for i, (cell, window) in enumerate(zip(acc, windows, strict=True)):
            place = i * conv.strides[1] + column * conv.dilation[1]
            if place not in words:
                words[place] = T.bind(_word(x, window + at, first, second))
            cell.store(0, T.call_llvm_pure_intrin("int32", intrinsic, words[place], factor, cell.load(0)))

    def two_rows(half: Expr) -> None:
        def column(kx: Expr, words: dict[int, Expr], number: int = 0) -> None:
            taps = conv.tap(half * 2, kx), conv.tap(half * 2 + 1, kx)
            products(*taps, half * kw + kx, words, number)

        if kw > _UNROLLED_TAPS:
            loop(kw, lambda kx: column(kx, {}))
            return
        words: dict[int, Expr] = {}
        for kx in range(kw):
            column(kx, words, kx)

    def last_row() -> None:
        def pair(i: Expr, words: dict[int, Expr], number: int = 0) -> None:
            taps = conv.tap(kh - 1, 2 * i), conv.tap(kh - 1, 2 * i + 1)
            products(*taps, kh // 2 * kw + i, words, number)

        if kw > _UNROLLED_TAPS:
            loop(kw // 2, lambda i: pair(i, {}))
        else:
            words: dict[int, Expr] = {}
            for i in range(kw // 2):
                pair(i, words, 2 * i)
        if kw % 2:
            products(conv.tap(kh - 1, kw - 1), None, kh // 2 * kw + kw // 2, {}, kw - 1)

    loop(kh // 2, two_rows)
    if kh % 2:
        last_row()


def _word(x: Flat, start: Expr, first: Expr, second: Expr | None) -> Expr:
    """The elements behind `start` at two offsets as halfwords of an int32; one alone has any beside it."""
    low = cast(x.load(start + first), "int32")
    if second is None:
        return low
    high = T.shift_left(cast(x.load(start + second), "int32"), T.int32(_HALF))
    return T.bitwise_or(T.bitwise_and(low, T.int32(0xFFFF)), high)
