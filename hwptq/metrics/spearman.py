"""spearman: whether predictions are in the order of the labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .metric import NamedMetric, needed


def spearman(outputs: Sequence[np.ndarray], labels: np.ndarray | None, exact: Sequence[np.ndarray]) -> float:
    """The correlation of ranks times 100, ties by their mean rank (Spearman 1904).

    outputs: one, [N] or [N, 1]; or two embeddings [N, D], whose cosine is the prediction. labels: float [N].
    """
    from scipy.stats import rankdata  # whose package takes as long to import as all of this one

    wanted, found = needed(labels, "the true value"), _predicted(outputs)
    if wanted.shape != found.shape:
        raise ValueError(f"{found.size} predictions, but labels {list(wanted.shape)}")
    a, b = rankdata(found), rankdata(wanted)
    if a.std() == 0 or b.std() == 0:
        raise ValueError("all predictions, or all labels, are equal: they have no order")
    return 100 * float(np.corrcoef(a, b)[0, 1])


def _predicted(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """float64 [N]."""
    arrays = [x.astype(np.float64) for x in outputs]
    first = arrays[0]
    if first.size == len(first):
        return first.reshape(-1)
    if len(arrays) != 2 or first.ndim != 2 or arrays[1].shape != first.shape:
        raise ValueError("give one output [N] or [N, 1], or two of the same shape [N, D]")
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(arrays[1], axis=1)
    dots = (first * arrays[1]).sum(axis=1)
    return np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)


METRIC = NamedMetric("spearman", spearman)
