"""Weights per group as kernels read them: rows of int4 weights, and behind them the factors of the groups."""

from __future__ import annotations

import numpy as np

from hwptq.quant.weight_groups import split_factors

from .pack_weights import pack_weights


def pack_grouped(weight: np.ndarray, run: int, lanes: int, k: int, size: int, block: int = 1) -> np.ndarray:
    """int8 [O, ..., I], int4 values times factors -> int8 [rows + factor_rows, lanes * k].

    The rows are those of pack_weights with 4 bits. The factors, one byte for each channel and group, lie in
    the same order: a row of `lanes` for each group of `size` elements of a run.
    """
    values, factors = split_factors(weight, size)
    rows = pack_weights(values * np.int8(16), run, lanes, k, 4, block)
    per_run = -(-run // size)
    flat = pack_weights(factors.reshape(len(factors), -1), per_run, lanes, 1, 8, block).reshape(-1)
    padded = np.pad(flat, (0, -len(flat) % rows.shape[1]))
    return np.concatenate([rows, padded.reshape(-1, rows.shape[1])])


def factor_rows(count: int, k: int) -> int:
    """Rows of lanes * k bytes that hold `count` rows of `lanes` factors."""
    return -(-count // k)
