"""Targets for a layer with a clamp behind it, where what is cut off need not be right.

The error that counts is |clamp(z) - clamp(y)|^2, y what the float layer gives, z what the rounded one does.
Where y lies beyond a bound, z may lie anywhere beyond it: there the target t is z itself, or the bound if z
has not passed it. For every z', |z' - t|^2 bounds the error that counts from above, closer than |z' - y|^2.
Rounding towards t, then setting z anew, follows majorize-minimize (Hunter and Lange 2004).
"""

from __future__ import annotations

import numpy as np


def clamped_target(y: np.ndarray, z: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """What the layer should give instead of y, if it gives z now; bounds broadcast against both.

    Relu: y = (-1, -1, 2), z = (-3, 1, -1) -> (-3, 0, 2).
    """
    below = np.where(y <= low, np.minimum(z, low), y)
    return np.where(y >= high, np.maximum(z, high), below)
