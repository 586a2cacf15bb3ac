"""Multiplication and addition of float32 with one rounding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def fma(a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike) -> np.ndarray:
    """float32 a * b + c, rounded once.

    The product of two float32 is exact in float64; the sum is rounded to odd there, after which rounding to
    float32 gives what one rounding would have given (Boldo and Melquiond, 2008).
    """
    p, added = np.asarray(a, np.float64) * np.asarray(b, np.float64), np.asarray(c, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        s = np.asarray(p + added)
        t = s - p
        error = (p - (s - t)) + (added - t)
        at = np.nonzero(np.atleast_1d(error))  # few, as a rule: most sums are exact
        if not len(at[0]):
            return s.astype(np.float32)
        s, error = np.atleast_1d(s).copy(), np.atleast_1d(error)[at]
        even = (s[at].view(np.uint64) & np.uint64(1)) == 0
        odd = np.nextafter(s[at], np.where(error > 0, np.inf, -np.inf))
        s[at] = np.where(np.isfinite(error) & even, odd, s[at])
        return s.reshape(np.shape(t)).astype(np.float32)
