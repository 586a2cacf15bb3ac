"""What a built-in metric is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

#: (outputs, labels, exact) -> score. outputs and exact (those of float32): one array [N, …] for each
#: output of the model; labels: array [N, …], or None where a sample has none. ValueError: they do not fit.
Compute = Callable[[Sequence[np.ndarray], "np.ndarray | None", Sequence[np.ndarray]], float]

#: outputs of samples -> boxes [N, K, 4] as left, top, right, bottom in pixels of the input, scores
#: [N, K], 0 for none, and classes [N, K].
Boxes = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]


@dataclass(frozen=True)
class NamedMetric:
    """A score by its name on the command line, which way is better, and what it can show."""

    name: str
    compute: Compute
    higher_is_better: bool = True
    boxes: Boxes | None = None  # where outputs say where things are


def needed(labels: np.ndarray | None, what: str) -> np.ndarray:
    """The labels; `what` says what they hold. Raises ValueError where there are none."""
    if labels is None:
        raise ValueError(f"a sample has no label; give {what} in y")
    return labels


def integers(labels: np.ndarray | None, what: str) -> np.ndarray:
    """The labels as int64. Raises ValueError where there are none or some are no integers."""
    found = needed(labels, what)
    if found.dtype.kind not in "iu":
        raise ValueError(f"the labels are {found.dtype}; give {what} in y")
    return found.astype(np.int64)
