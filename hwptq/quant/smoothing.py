"""How far outliers of an activation's channels should move into the weights that read them.

    x W = (x / s) (s W),    s_j = max|x_j|^strength / max|W_j|^(1 - strength)       per channel j

Xiao et al. 2023, "SmoothQuant", equation 4; the strength is the one that loses least on rows of data, as in
Lin et al. 2024, "AWQ", section 3.2, with activations rounded too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: What is tried; 0 besides, which means no smoothing.
STRENGTHS = (0.35, 0.5, 0.65, 0.8, 0.95)
_ACTIVATION_STEPS = 255
_WORTH = 0.97  # what is left of the error where smoothing is worth it
#: The same where it takes a product by element more.
WORTH_A_PRODUCT = 0.6
#: And where that is one in float.
WORTH_A_FLOAT_PRODUCT = 0.1
_WORTH_A_TOKEN = 0.5  # the same beside scales for each token, which bear most outliers by themselves


@dataclass(frozen=True)
class Product:
    """One dense layer behind a tensor: rows of its input, and the weight that multiplies them.

    rows [N,K]; low and high [K]: the range of each input channel on all data; weight [K,O].
    """

    rows: np.ndarray
    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray

    def error(self, by: np.ndarray, per_token: bool, qmax: int) -> float:
        """The part of the energy of x W that is lost in integers, of x / by and by W."""
        wanted = self.rows @ self.weight
        x = _rounded(self.rows / by, self._scale(by, per_token))
        w = self.weight * by[:, None]
        w = _rounded(w, np.abs(w).max(axis=0, keepdims=True) / qmax)
        energy = float(np.square(wanted).sum())
        return float(np.square(x @ w - wanted).sum()) / energy if energy else 0.0

    def _scale(self, by: np.ndarray, per_token: bool) -> np.ndarray:
        """The scale of the activation: one for each row of it, or one that covers the whole range."""
        if per_token:
            return np.abs(self.rows / by).max(axis=1, keepdims=True) * (2 / (_ACTIVATION_STEPS - 1))
        low, high = min(float((self.low / by).min()), 0.0), max(float((self.high / by).max()), 0.0)
        return np.asarray((high - low) / _ACTIVATION_STEPS)


def factors(reach: np.ndarray, weights: np.ndarray, strength: float) -> np.ndarray:
    """s [K], 1 where a channel is dead on either side. reach: max|x_j|; weights: max|W_j|."""
    alive = (reach > 0) & (weights > 0)
    x, w = np.where(alive, reach, 1.0), np.where(alive, weights, 1.0)
    s = x**strength / w ** (1 - strength)
    middle = np.exp(np.log(s[alive]).mean()) if alive.any() else 1.0
    return np.where(alive, s / middle, 1.0)


def best_factors(
    reach: np.ndarray, weights: np.ndarray, products: Sequence[tuple[Product, np.ndarray]],
    per_token: bool = False, qmax: int = 127, worth: float = _WORTH,
) -> np.ndarray:  # fmt: skip
    """s [C] of the strength that loses least, or ones where none is worth it.

    products: the layers behind the tensor, each with the tensor's channel that each of its inputs holds;
    qmax: the largest code of their weights; worth: what is left at most of the error where it is worth it.
    """
    channels = len(reach)

    def error(s: np.ndarray) -> float:
        return sum(p.error(np.append(s, 1.0)[at], per_token, qmax) for p, at in products)

    tried = [factors(reach, weights, strength) for strength in STRENGTHS]
    plain, errors = error(np.ones(channels)), [error(s) for s in tried]
    best = int(np.argmin(errors))
    worth = min(worth, _WORTH_A_TOKEN) if per_token else worth
    return tried[best] if errors[best] < worth * plain else np.ones(channels)


def _rounded(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    steps = np.where(scale > 0, scale, 1.0)
    return np.rint(x / steps) * steps
