"""Measures of two towers whose embeddings [N, D] belong together row by row; numbers in, numbers out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .depth import Stretch

#: Rows of similarities whose pairs of ranks are counted: all pairs of a row are many.
KENDALL_ROWS = 64


@dataclass(frozen=True)
class Retrieval:
    """a_to_b, b_to_a: the share of rows whose own partner is the nearest, %; margin: the mean difference
    between the cosine of a pair and that of the best wrong partner of its row."""

    a_to_b: float
    b_to_a: float
    margin: float


@dataclass(frozen=True)
class Agreement:
    """How like two matrices of similarities order their rows: the mean of Spearman's rho over all rows, that
    of Kendall's tau over some, and the share of rows with the same nearest partner, %."""

    spearman: float
    kendall: float
    same_nearest: float


@dataclass(frozen=True)
class Consistency:
    """Of emitted code, and beside float32 where that is given; noise: the SQNR of both embeddings, dB; depth:
    that of the layers of both towers."""

    pairs: int
    emitted: Retrieval
    float32: Retrieval | None = None
    agreement: Agreement | None = None
    noise: tuple[float, float] | None = None
    depth: tuple[tuple[Stretch, ...], tuple[Stretch, ...]] = ((), ())

    def row(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def similarities(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines [N, N] of rows of a and of b, float64."""
    first, second = (_unit(x.astype(np.float64)) for x in (a, b))
    return first @ second.T


def _unit(x: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norm > 0, norm, 1.0)


def retrieval(s: np.ndarray) -> Retrieval:
    """Of similarities [N, N], pairs on the diagonal; a tie with a wrong partner is a miss. N is 2 or more."""
    right = np.diagonal(s)
    wrong = s.copy()
    np.fill_diagonal(wrong, -np.inf)
    return Retrieval(
        100 * float((right > wrong.max(axis=1)).mean()),
        100 * float((right > wrong.max(axis=0)).mean()),
        float((right - wrong.max(axis=1)).mean()),
    )


def agreement(s: np.ndarray, other: np.ndarray) -> Agreement:
    """Of two matrices of similarities."""
    rho = np.mean([_correlation(_ranks(x), _ranks(y)) for x, y in zip(s, other, strict=True)])
    step = max(1, len(s) // KENDALL_ROWS)
    tau = np.mean([_kendall(x, y) for x, y in zip(s[::step], other[::step], strict=True)])
    same = 100 * float((s.argmax(axis=1) == other.argmax(axis=1)).mean())
    return Agreement(float(rho), float(tau), same)


def _ranks(x: np.ndarray) -> np.ndarray:
    """The rank of each value, equal values at their mean."""
    _, place, count = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    return (ends - (count - 1) / 2)[place]


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size else 1.0


def _kendall(x: np.ndarray, y: np.ndarray) -> float:
    """Tau-b."""
    first, second = (np.sign(v[:, None] - v[None, :]) for v in (x, y))
    untied = np.sqrt(np.abs(first).sum() * np.abs(second).sum())
    return float((first * second).sum() / untied) if untied else 1.0


def sqnr_db(exact: np.ndarray, found: np.ndarray) -> float:
    """20 log10(|exact| / |exact - found|); inf where they are equal."""
    error = float(np.square(exact.astype(np.float64) - found).sum())
    signal = float(np.square(exact.astype(np.float64)).sum())
    return float("inf") if not error else 10 * float(np.log10(signal / error)) if signal else float("-inf")


def consistency(
    emitted: tuple[np.ndarray, np.ndarray], exact: tuple[np.ndarray, np.ndarray] | None = None
) -> Consistency:
    """Of the embeddings of both towers, and those of float32 beside them."""
    s = similarities(*emitted)
    if exact is None:
        return Consistency(len(s), retrieval(s))
    other = similarities(*exact)
    noise = sqnr_db(exact[0], emitted[0]), sqnr_db(exact[1], emitted[1])
    return Consistency(len(s), retrieval(s), retrieval(other), agreement(other, s), noise)
