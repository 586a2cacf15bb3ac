"""How far results are from those that are wanted, and the gradient of that."""

from __future__ import annotations

import numpy as np

_TINY = np.float32(1e-20)


def relative_error(found: np.ndarray, wanted: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean over rows [..., C] of |error|^2 / |wanted row|^2."""
    size = np.square(wanted).sum(axis=-1, keepdims=True) + _TINY
    error, rows = found - wanted, wanted.size // wanted.shape[-1]
    gradient = error * (np.float32(2 / rows) / size)
    return float((error * gradient).sum()) / 2, gradient


def divergence(found: np.ndarray, wanted: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean over rows [..., C] of KL(p || q) in nats, p the softmax of the wanted row and q of the found.

    Its gradient is (q - p) / rows.
    """
    rows = wanted.size // wanted.shape[-1]
    log_p, log_q = _log_softmax(wanted), _log_softmax(found)
    p = np.exp(log_p)
    lost = float((p * (log_p - log_q)).sum(dtype=np.float64)) / rows
    return lost, (np.exp(log_q) - p) / np.float32(rows)


def _log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
