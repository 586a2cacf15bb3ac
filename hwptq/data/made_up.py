"""Samples for a model that nobody gave data for: enough to verify its code, nothing to judge it by."""

from __future__ import annotations

import numpy as np

from hwptq.notices import Warning

from .sources import Inputs

COUNT = 4
MADE_UP = Warning(
    "made-up-data",
    "",
    f"there is no data: the code is verified on {COUNT} samples of random numbers, and the accuracy says "
    "nothing; give evaluation data",
)


def made_up(inputs: Inputs, seed: int = 0, position: str | None = None) -> list[dict[str, np.ndarray]]:
    """Normal floats; integers and truth values are 0 or 1, as token, type and mask alike can be. The input
    named `position` counts the samples."""
    rng = np.random.default_rng(seed)

    def array(shape: tuple[int, ...], dtype: str) -> np.ndarray:
        if np.dtype(dtype).kind == "f":
            return rng.standard_normal(shape).astype(dtype)
        return rng.integers(0, 2, shape).astype(dtype)

    samples = [{name: array(*of) for name, of in inputs.items()} for _ in range(COUNT)]
    if position is not None:
        for i, sample in enumerate(samples):
            sample[position] = np.full_like(sample[position], i)
    return samples
