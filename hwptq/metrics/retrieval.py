"""retrieval: whether the partner of each embedding is the nearest, both ways."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .metric import NamedMetric, needed


def retrieval(outputs: Sequence[np.ndarray], labels: np.ndarray | None, exact: Sequence[np.ndarray]) -> float:
    """Percent: the mean of R@1 from the first output's rows to the labels' and back, by cosine; a tie is a
    miss. For one of two towers (Radford et al. 2021).

    outputs: embeddings [N, D], the first counts; labels: those of the other tower, of the same pairs.
    """
    wanted, found = needed(labels, "the embedding that the other tower gives for its partner"), outputs[0]
    rows = found.reshape(len(found), -1)
    if wanted.shape != rows.shape or len(rows) < 2:
        raise ValueError(
            f"embeddings are {list(rows.shape)}, and those in y {list(wanted.shape)}: give two pairs or more"
        )
    s = _unit(rows) @ _unit(wanted).T
    own = np.diagonal(s).copy()
    np.fill_diagonal(s, -np.inf)
    return 50 * float((own > s.max(axis=1)).mean() + (own > s.max(axis=0)).mean())


def _unit(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(length > 0, length, 1.0))


METRIC = NamedMetric("retrieval", retrieval)
