"""Operators that draw random numbers: what they give is known to nobody before they run."""

from __future__ import annotations

RANDOM = frozenset(
    ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")
)
