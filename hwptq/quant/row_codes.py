"""int8 codes of a matrix with a scale for each row: read back from a file, they are the same again."""

from __future__ import annotations

import numpy as np

from .qparams import quantize_weight, weight_scales
from .symmetric_weights import on_grid, represents

_MOST_ROUNDS = 4  # until a scale no longer changes; one ulp is all that it can


def row_codes(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(codes int8 [N,K], scale float32 [N]) of a float32 weight [N,K], symmetric.

    Integers of another tool, of which the weight is a multiple row by row, stay. Else each row is rounded to
    ±127 steps, whose products with the codes give the same codes and scales if they are rounded again.
    """
    scale = weight_scales(weight, 0)
    codes = quantize_weight(weight, scale, 0)
    if represents(codes, scale, 0, weight):
        return codes, scale
    found = on_grid(weight, 0)
    if found is not None:
        for _ in range(_MOST_ROUNDS):
            next_one = on_grid(found.codes * found.scale[:, None], 0)
            if next_one is None or np.array_equal(next_one.scale, found.scale):
                break
            found = next_one
        return found.codes, found.scale
    for _ in range(_MOST_ROUNDS):
        again = weight_scales(codes * scale[:, None], 0)
        if np.array_equal(again, scale):
            break
        scale = again
    return codes, scale
