"""The constants of the wgmma kernel in the order of its threads, in numpy only.

A thread of a warpgroup holds pairs of neighbouring columns of an m64nN tile, 8 columns apart. With the rows
of the weights permuted in groups, its pairs are `width` neighbouring output channels instead, which it stores
in one piece.
"""

from __future__ import annotations

import numpy as np

from .tiling import Tiling


def permutation(rows: int, width: int) -> np.ndarray:
    """int64 [rows]: which output channel lies at each row; rows is a multiple of 4 * width."""
    unit = 4 * width
    position = np.arange(unit)
    pair, thread, element = position // 8, position % 8 // 2, position % 2
    within = thread * width + pair * 2 + element
    return np.arange(rows) // unit * unit + np.tile(within, rows // unit)


def packed_weights(w: np.ndarray, tiling: Tiling) -> np.ndarray:
    """w [O,taps,C] -> [weight_rows, weight_depth]: each tap filled with zeros, rows permuted."""
    outputs, taps, channels = w.shape
    bits = f"uint{8 * w.itemsize}"
    filled = np.zeros((tiling.weight_rows, taps, tiling.chunks * tiling.chunk), bits)
    filled[:outputs, :, :channels] = w.view(bits)
    order = permutation(tiling.weight_rows, tiling.problem.width)
    return filled.reshape(tiling.weight_rows, -1)[order].view(w.dtype)


def filled(values: np.ndarray, tiling: Tiling) -> np.ndarray:
    """[O] with zeros behind it: [weight_rows]; -0 becomes 0, so that the sign of a sum of 0 is lost."""
    return np.pad(values + values.dtype.type(0), (0, tiling.weight_rows - len(values)))
