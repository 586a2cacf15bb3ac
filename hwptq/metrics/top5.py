"""top5: the share of samples whose class is among the five likeliest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .metric import NamedMetric, integers

_MANY = 5


def top5(outputs: Sequence[np.ndarray], labels: np.ndarray | None, exact: Sequence[np.ndarray]) -> float:
    """Percent. outputs[0]: float [N, classes]; labels: int [N]. Of equal scores the first counts more."""
    scores, wanted = outputs[0], integers(labels, "the number of its class")
    if scores.ndim != 2 or wanted.shape != scores.shape[:1]:
        raise ValueError(f"the first output is {list(scores.shape)}, not [samples, classes], one label each")
    if wanted.min() < 0 or wanted.max() >= scores.shape[1]:
        raise ValueError(
            f"the labels are {wanted.min()} … {wanted.max()}, not all below {scores.shape[1]} classes"
        )
    likeliest = np.argsort(-scores, axis=1, kind="stable")[:, :_MANY]
    return 100 * float((likeliest == wanted[:, None]).any(axis=1).mean())


METRIC = NamedMetric("top5", top5)
