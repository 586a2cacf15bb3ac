"""cosine: the angle to the outputs of float32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .metric import NamedMetric


def cosine(outputs: Sequence[np.ndarray], labels: np.ndarray | None, exact: Sequence[np.ndarray]) -> float:
    """The cosine to those of float32, of all samples together; the least of the outputs. Reads no labels."""
    return min(
        _cosine(x.astype(np.float64), y.astype(np.float64)) for x, y in zip(outputs, exact, strict=True)
    )


def _cosine(x: np.ndarray, y: np.ndarray) -> float:
    lengths = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float((x * y).sum()) / lengths if lengths else float(np.array_equal(x, y))


METRIC = NamedMetric("cosine", cosine)
