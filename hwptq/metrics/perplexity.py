"""perplexity: how surprised a language model is by the tokens that follow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .metric import NamedMetric, integers


def perplexity(
    outputs: Sequence[np.ndarray], labels: np.ndarray | None, exact: Sequence[np.ndarray]
) -> float:
    """exp of the mean negative log-likelihood in nats; lower is better.

    outputs[0]: logits [N, T, vocabulary]; labels: int [N, T], the token that follows each; negative: none.
    """
    logits, wanted = outputs[0].astype(np.float64), integers(labels, "the tokens that follow")
    if logits.ndim != 3 or wanted.shape != logits.shape[:2]:
        raise ValueError(
            f"the first output is {list(logits.shape)}, the labels are {list(wanted.shape)}: "
            f"give logits [N, T, vocabulary] and labels [N, T]"
        )
    counted = wanted >= 0
    rows, tokens = logits[counted], wanted[counted]
    if not tokens.size or tokens.max() >= logits.shape[2]:
        raise ValueError(f"the labels must be tokens below {logits.shape[2]}, or negative where not counted")
    peak = rows.max(axis=1)
    total = peak + np.log(np.exp(rows - peak[:, None]).sum(axis=1))
    return float(np.exp(np.mean(total - rows[np.arange(len(rows)), tokens])))


METRIC = NamedMetric("perplexity", perplexity, higher_is_better=False)
