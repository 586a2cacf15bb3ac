"""The constants of the wgmma kernel in the order of its threads, in numpy only.

A thread of a warpgroup holds pairs of neighbouring columns of an m64nN tile, 8 columns apart. With the rows
of the weights permuted in groups of 64, its pairs are 16 neighbouring output channels instead, which it
stores in one piece.
"""

from __future__ import annotations

import numpy as np

from .tiling import PERMUTED, Tiling


def permutation(rows: int) -> np.ndarray:
    """int64 [rows]: which output channel lies at each row; rows is a multiple of 64."""
    position = np.arange(PERMUTED)
    pair, thread, element = position // 8, position % 8 // 2, position % 2
    within = thread * 16 + pair * 2 + element
    return np.arange(rows) // PERMUTED * PERMUTED + np.tile(within, rows // PERMUTED)


def packed_weights(w: np.ndarray, tiling: Tiling) -> np.ndarray:
    """w [O,taps,C], a byte each -> [weight_rows, weight_depth]: each tap filled with zeros, rows permuted."""
    outputs, taps, channels = w.shape
    filled = np.zeros((tiling.weight_rows, taps, tiling.chunks * tiling.chunk), np.uint8)
    filled[:outputs, :, :channels] = w.view(np.uint8)
    return filled.reshape(tiling.weight_rows, -1)[permutation(tiling.weight_rows)].view(w.dtype)


def filled(values: np.ndarray, tiling: Tiling) -> np.ndarray:
    """[O] with zeros behind it: [weight_rows]."""
    return np.pad(values, (0, tiling.weight_rows - len(values)))
