"""Adam (Kingma and Ba 2015, algorithm 1), and the mean of what it goes through."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

_FIRST, _SECOND = 0.9, 0.99
_TINY = np.float32(1e-12)


@dataclass
class Adam:
    """Steps of one array that makes a loss smaller, in place; `mean` is that over the steps it was told to
    keep, which lies nearer to the least than the last one (Polyak and Juditsky 1992)."""

    value: np.ndarray
    rate: float
    steps: int = 0
    kept: int = 0
    _first: np.ndarray = field(init=False)
    _second: np.ndarray = field(init=False)
    _sum: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self._first, self._second, self._sum = (np.zeros_like(self.value) for _ in range(3))

    def step(self, gradient: np.ndarray, share: float, keep: bool) -> None:
        """One step of `share` times the rate against the gradient."""
        self.steps += 1
        self._first += np.float32(1 - _FIRST) * (gradient - self._first)
        self._second += np.float32(1 - _SECOND) * (gradient * gradient - self._second)
        first = self._first / np.float32(1 - _FIRST**self.steps)
        second = self._second / np.float32(1 - _SECOND**self.steps)
        self.value -= np.float32(self.rate * share) * first / (np.sqrt(second) + _TINY)
        if keep:
            self.kept += 1
            self._sum += self.value

    def settle(self) -> None:
        """Let the value be the mean of those that were kept, if there were any."""
        if self.kept:
            self.value[...] = self._sum / np.float32(self.kept)
