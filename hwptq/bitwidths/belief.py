"""What a classifier itself expects to lose where another answers for it: a smooth stand-in for counted hits.

Labels are one draw of what the network believes; the mean over all draws moves far less from choice to choice
than hits do, of which one in 200 samples is half a point. Networks are surer of themselves than they should
be, so their outputs are divided by the temperature that fits the labels best (Guo et al., 2017, "On
calibration of modern neural networks", section 4.2).
"""

from __future__ import annotations

import numpy as np

_TEMPERATURES = np.geomspace(0.25, 16, 97)


def believed_drop(outputs: np.ndarray, labels: np.ndarray, answers: np.ndarray) -> float:
    """Points of top-1 that the answers lose: 100 * the mean of p(own answer) - p(the other answer).

    outputs: logits or probabilities of float32, [N, classes]; labels and answers: classes, [N]. At least 0.
    """
    logits = _log_softmax(_logits(outputs))
    rows = np.arange(len(logits))
    losses = [-_log_softmax(logits / t)[rows, labels].mean() for t in _TEMPERATURES]
    p = np.exp(_log_softmax(logits / _TEMPERATURES[int(np.argmin(losses))]))
    return float(100 * (p.max(axis=1) - p[rows, answers]).mean())


def _logits(outputs: np.ndarray) -> np.ndarray:
    """Outputs of a softmax are brought back to what it was taken of."""
    x = outputs.astype(np.float64)
    if x.min() >= 0 and np.allclose(x.sum(axis=1), 1, atol=1e-3):
        return np.asarray(np.log(np.maximum(x, 1e-30)))
    return x


def _log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(axis=1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis=1, keepdims=True)))
