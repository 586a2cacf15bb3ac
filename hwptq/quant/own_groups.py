"""Rows of weights whose groups another tool has quantized: their levels, scales and zero points."""

from __future__ import annotations

import numpy as np

from hwptq.formats import Format

from .group_codes import GroupedRows, group_count, pack_rows
from .symmetric_weights import on_grid, witnesses


def own_rows(rows: np.ndarray, weight: Format, size: int) -> GroupedRows | None:
    """Rows [R, K] as levels of `weight` with a scale, and where they need one a zero point, for each group of
    `size` along them: the very values, in float32. None where some group is no such thing, or a format's
    levels are not consecutive integers.

    int4, [0, 0.5, 7.5, 1] -> levels [-8, -7, 7, -6], scale 0.5, zero -8.
    """
    few = witnesses(rows)
    if len(rows) > len(few) and own_rows(few, weight, size) is None:
        return None
    levels = np.sort(weight.points())
    if not np.array_equal(levels, np.arange(levels[0], levels[0] + len(levels))):
        return None
    count, depth = group_count(rows.shape[1], size), rows.shape[1]
    padded = np.pad(rows, ((0, 0), (0, count * size - depth)))
    found = on_grid(padded.reshape(-1, size), 0)
    if found is None:
        return None
    steps = found.codes.astype(np.int64)
    low, high = steps.min(axis=1), steps.max(axis=1)
    zeros = np.where((low < levels[0]) | (high > levels[-1]), int(levels[0]) - low, 0)
    if np.any(high + zeros > levels[-1]):
        return None
    held = (steps + zeros[:, None]).reshape(len(rows), -1)[:, :depth].astype(np.int8)
    scales = found.scale.reshape(len(rows), count)
    of_groups = zeros.reshape(len(rows), count).astype(np.int8) if zeros.any() else None
    return GroupedRows(weight.name, size, depth, pack_rows(held, weight), scales, of_groups)
