"""AdaRound: which of its two neighbours each weight becomes, by gradient descent on a soft rounding.

A weight t in units of its scale becomes floor(t) + h(V), h a sigmoid stretched beyond [0, 1] and clipped to
it, so that it reaches both ends. Adam minimises the loss of rounding plus lambda sum(1 - |2 h - 1|^beta);
beta falls, so that each h is free at first and ends at 0 or 1.
Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization", eq. 21 to 25.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .rounding import Factor, nearest, rounding_loss

_LOW, _HIGH = -0.1, 1.1  # gamma and zeta: what the sigmoid is stretched to
_DECAYS = 0.9, 0.999  # of Adam's moments
_TINY = 1e-8


@dataclass(frozen=True)
class Schedule:
    """How long to descend, and how h is driven to 0 and 1.

    weight: lambda, where the loss is in squared steps of a weight whose input has the mean variance.
    """

    iterations: int = 400
    rate: float = 0.2
    weight: float = 0.2
    warm_up: float = 0.2  # part of the iterations with the loss alone
    beta: tuple[float, float] = (20.0, 2.0)  # first and last, in between a cosine

    def beta_at(self, iteration: int) -> float | None:
        """The exponent of the regulariser; None while it is off."""
        start = self.warm_up * self.iterations
        if iteration < start:
            return None
        done = (iteration - start) / (self.iterations - start)
        first, last = self.beta
        return last + (first - last) * 0.5 * (1 + np.cos(np.pi * done))


def adaround(
    target: np.ndarray, gram: np.ndarray, scale: np.ndarray, qmax: int, factor: Factor = 1.0,
    schedule: Schedule | None = None,
) -> np.ndarray:  # fmt: skip
    """Integers [G,R,K] (float64) in [-qmax, qmax], each a neighbour of target / (scale * factor); never worse
    than the nearest ones in the loss of a row. target [G,R,K], gram [G,K,K], scale [G,R].
    """
    wanted = target / (scale[..., None] * factor)
    floor = np.clip(np.floor(wanted), -qmax, qmax - 1)
    up = _soft(wanted - floor, gram, np.asarray(factor, np.float32), schedule or Schedule()) >= 0.5
    plain, soft = nearest(target, scale, qmax, factor), floor + up
    lost = [rounding_loss(q * factor, scale, target, gram) for q in (soft, plain)]
    return np.where((lost[0] < lost[1])[..., None], soft, plain)


def _soft(rest: np.ndarray, gram: np.ndarray, factor: np.ndarray, schedule: Schedule) -> np.ndarray:
    """h in [0, 1] of each weight that should rise by `rest`, all [G,R,K]; float32 within."""
    variance = np.einsum("gkk->g", gram) / gram.shape[-1]
    metric = (gram / np.where(variance > 0, variance, 1.0)[:, None, None]).astype(np.float32)
    factor = factor / np.float32(factor.max(initial=1.0))  # the largest step is the regulariser's unit
    rest = rest.astype(np.float32)
    v = _inverse(np.clip(rest, 0.0, 1.0))
    first, second = np.zeros_like(v), np.zeros_like(v)
    for i in range(schedule.iterations):
        h, slope = rectified_sigmoid(v)
        gradient = 2 * factor * (((h - rest) * factor) @ metric)
        beta = schedule.beta_at(i)
        if beta is not None:
            gradient -= schedule.weight * _pull(h, beta)
        gradient *= slope
        first += (1 - _DECAYS[0]) * (gradient - first)
        second += (1 - _DECAYS[1]) * (gradient * gradient - second)
        a, b = (1 - decay ** (i + 1) for decay in _DECAYS)
        v -= schedule.rate / a * first / (np.sqrt(second / b) + _TINY)
    return rectified_sigmoid(v)[0]


def rectified_sigmoid(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """h(v) = clip(sigmoid(v) (zeta - gamma) + gamma, 0, 1) and its derivative (eq. 23)."""
    sigmoid = 1 / (1 + np.exp(-v))
    h = sigmoid * (_HIGH - _LOW) + _LOW
    inside = (h > 0) & (h < 1)
    return np.clip(h, 0.0, 1.0), np.where(inside, (_HIGH - _LOW) * sigmoid * (1 - sigmoid), 0.0)


def _inverse(h: np.ndarray) -> np.ndarray:
    """v with h(v) = h."""
    sigmoid = (h - _LOW) / (_HIGH - _LOW)
    return np.log(sigmoid / (1 - sigmoid))


def _pull(h: np.ndarray, beta: float) -> np.ndarray:
    """Minus the derivative of 1 - |2 h - 1|^beta: towards the nearer end (eq. 24)."""
    away = 2 * h - 1
    return 2 * beta * np.sign(away) * np.abs(away) ** (beta - 1)
