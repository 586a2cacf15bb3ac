"""Gradients through matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .rule import Gradient, Place, derivative, summed_to


@derivative("matmul")
def _matmul(place: Place, g: np.ndarray) -> Sequence[Gradient]:
    """y = a b: da = g b^T, db = a^T g, summed where they were broadcast. Vectors have no rule."""
    a, b = place.inputs
    if min(a.ndim, b.ndim) < 2:
        raise ValueError("a product with a vector has no derivative here")
    if b.ndim == 2 and a.ndim > 2:  # one product of all rows
        rows, of_rows = a.reshape(-1, a.shape[-1]), g.reshape(-1, g.shape[-1])
        return [
            (of_rows @ b.T).reshape(a.shape) if place.needed[0] else None,
            rows.T @ of_rows if place.needed[1] else None,
        ]
    return [
        summed_to(g @ b.swapaxes(-1, -2), a.shape) if place.needed[0] else None,
        summed_to(a.swapaxes(-1, -2) @ g, b.shape) if place.needed[1] else None,
    ]
