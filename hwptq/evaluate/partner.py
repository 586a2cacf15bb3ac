"""The other tower of two: what a choice loses is what the order of its embeddings loses.

    s = cosines of an embedding with all of the partner's        p = softmax(s / spread of the exact s)
    loss = KL(p of float32, p of what is tried)

An error along what no partner tells apart costs nothing, one among near partners much.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwptq.errors import InputError
from hwptq.no_device import check_no_device


@dataclass(frozen=True)
class Partner:
    """The embeddings of the other tower, float64 [N, D], each of length 1."""

    rows: np.ndarray

    def loss(self, exact: np.ndarray, found: np.ndarray) -> float:
        """What is lost between two forms of an embedding, of D values; in nats.

        Raises InputError for one of another size.
        """
        size = self.rows.shape[1]
        if exact.size != size:
            raise InputError(
                f"--partner: embeddings of {size} values; the first output of the model has {exact.size}"
            )
        wanted, got = (self.rows @ _unit(x.reshape(1, -1).astype(np.float64))[0] for x in (exact, found))
        spread = max(float(wanted.std()), 1e-12)
        p, q = (_log_softmax(s / spread) for s in (wanted, got))
        return float((np.exp(p) * (p - q)).sum())


def read_partner(path: Path) -> Partner:
    """The partner whose embeddings an .npy [N, D] of floats holds, two or more. Raises InputError."""
    try:
        rows = np.load(check_no_device(path), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"--partner {path}: no .npy of an array ({error})") from error
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind != "f" or len(rows) < 2:
        raise InputError(f"--partner {path}: give embeddings [N, D] of floats, two or more")
    if not np.isfinite(rows).all():
        raise InputError(f"--partner {path}: some values are not finite")
    return Partner(_unit(rows.astype(np.float64)))


def _unit(x: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 0, length, 1.0)


def _log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max()
    return shifted - np.log(np.exp(shifted).sum())
