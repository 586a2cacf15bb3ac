"""Attention in float32 with one order of its sums, so that all code gives the same bits.

    s = factor * sum(q * k)     over the size of a head: LANES sums by fma in order, added by halves
    e = exponential(s - max s)  of the positions that are shown, else 0
    y = fma(sum(e * v), 1 / sum(e), 0), the first sum by fma in the order of the positions, the other of LANES
                                sums in order, added by halves

What is hidden adds nothing: code may leave it out or add zeros. So a row does not depend on how many
positions stand behind the last one that it sees. The last addition of 0 makes a zero positive.
"""

from __future__ import annotations

import numpy as np

from .fma import fma

#: Sums that a sum of products, or of exponentials, is made of: element i belongs to i mod LANES.
LANES = 16
#: exponential(x) is that of LEAST below it: 4.5e-38, beside the largest one, which is 1.
LEAST = -86.0
LOG2_E = float(np.float32(1.44269504088896341))
#: ln 2 in two parts, the first of which has few bits.
LN_2 = (0.693359375, float(np.float32(-2.12194440e-4)))
#: Of exp(r) = 1 + r + r^2 * polynomial, |r| <= ln 2 / 2, highest power first (Cephes, expf).
POLYNOMIAL = tuple(
    float(np.float32(c))
    for c in (
        1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1,
    )
)  # fmt: skip
#: Beside it a float32 has no fraction, and its lowest bits are the integer.
MAGIC = 1.5 * 2**23
_MANTISSA = 23


def exponential(x: np.ndarray) -> np.ndarray:
    """exp(x) of float32 x <= 0, to about 1e-7 of it."""
    x = np.maximum(x, np.float32(LEAST))
    shifted = fma(x, np.float32(LOG2_E), np.float32(MAGIC))
    n = shifted - np.float32(MAGIC)
    rest = x
    for part in LN_2:
        rest = fma(n, np.float32(-part), rest)
    value = np.full_like(rest, POLYNOMIAL[0])
    for c in POLYNOMIAL[1:]:
        value = fma(value, rest, np.float32(c))
    value = fma(value, rest * rest, rest) + np.float32(1)
    bits = value.view(np.int32) + np.left_shift(shifted.view(np.int32), _MANTISSA)
    return np.asarray(bits, np.int32).view(np.float32)


def by_halves(x: np.ndarray) -> np.ndarray:
    """The sum over the last axis, of a power of two: the halves are added, and their halves."""
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        x = x[..., :half] + x[..., half:]
    return x[..., 0]


def real_scores(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """float32 [..., T, D] and [..., S, D] -> the sums of products, [..., T, S]."""
    sums = np.zeros((*q.shape[:-1], k.shape[-2], LANES), np.float32)
    for at in range(0, q.shape[-1], LANES):
        a, b = q[..., :, None, at : at + LANES], k[..., None, :, at : at + LANES]
        n = b.shape[-1]
        sums[..., :n] = fma(a, b, sums[..., :n])
    return by_halves(sums)


def weighted_rows(
    scores: np.ndarray, hidden: np.ndarray, empties: bool, v: np.ndarray, scale: np.ndarray | None = None
) -> np.ndarray:
    """scores [..., T, S], hidden bool of that shape, v [..., S, E], its rows times `scale` [..., S] ->
    [..., T, E].

    A row that is hidden whole is the mean of all of them, or zeros where it `empties` such rows.
    """
    none = hidden.all(axis=-1, keepdims=True)
    s = np.where(none, np.float32(0), np.where(hidden, np.float32(-np.inf), scores))
    e = np.where(hidden & ~none, np.float32(0), exponential(s - s.max(axis=-1, keepdims=True)))
    missing = -e.shape[-1] % LANES
    lanes = np.pad(e, [(0, 0)] * (e.ndim - 1) + [(0, missing)]).reshape(*e.shape[:-1], -1, LANES)
    total = np.zeros((*e.shape[:-1], LANES), np.float32)
    for block in range(lanes.shape[-2]):
        total = total + lanes[..., block, :]
    share = e if scale is None else e * scale[..., None, :]
    y = np.zeros((*e.shape[:-1], v.shape[-1]), np.float32)
    for j in range(e.shape[-1]):
        seen = (e[..., j] != 0).reshape(-1, e.shape[-2]).any(axis=0)
        y[..., seen, :] = fma(share[..., seen, j, None], v[..., j, None, :], y[..., seen, :])
    whole = np.float32(1) / by_halves(total)[..., None]
    return fma(y, np.where(none & empties, np.float32(0), whole), np.float32(0))
