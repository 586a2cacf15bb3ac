"""Multiplication and addition of float32 with one rounding."""

from __future__ import annotations

import numpy as np


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """float32 a * b + c, rounded once.

    The product of two float32 is exact in float64; the sum is rounded to odd there, after which rounding to
    float32 gives what one rounding would have given (Boldo and Melquiond, 2008).
    """
    p, c = np.asarray(a, np.float64) * np.asarray(b, np.float64), np.asarray(c, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        s = np.asarray(p + c)
        t = s - p
        error = (p - (s - t)) + (c - t)
        at = np.nonzero(np.atleast_1d(error))  # few, as a rule: most sums are exact
        if not len(at[0]):
            return s.astype(np.float32)
        s, error = np.atleast_1d(s).copy(), np.atleast_1d(error)[at]
        even = (s[at].view(np.uint64) & np.uint64(1)) == 0
        odd = np.nextafter(s[at], np.where(error > 0, np.inf, -np.inf))
        s[at] = np.where(np.isfinite(error) & even, odd, s[at])
        return s.reshape(np.shape(t)).astype(np.float32)
