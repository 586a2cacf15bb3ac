"""Random attention in float: heads that share keys, masks of every kind, sizes of no whole vectors too."""

from __future__ import annotations

from random import Random

import numpy as np
from kernel_cases import Case

from hwptq.operators.attention import Attention, AttentionOnRows


def sizes(random: Random, few: bool) -> tuple[int, int, int, int, int, int, int]:
    """Batch, heads, shared heads, rows, positions, depth and width."""
    if few:
        shared, (positions, depth, width) = random.choice((1, 2)), (random.randint(1, 18) for _ in range(3))
        return 1, 2 * shared, shared, random.choice((1, 2)), positions, depth, width
    shared, serves = random.choice((1, 2)), random.choice((1, 2, 3, 5))
    whole = random.random() < 0.6
    depth, width = (random.choice((16, 32, 48)) if whole else random.randint(1, 20) for _ in range(2))
    positions = random.choice((16, 32, 40, 53)) if whole else random.randint(1, 40)
    rows = random.choice((1, 1, 3, 4))
    return random.choice((1, 2)), shared * serves, shared, rows, positions, depth, width


def hiding(random: Random, batch: int, rows: int, positions: int) -> np.ndarray:
    """Of nothing, of what stands behind a position, of any, or of all in some rows."""
    shape = random.choice((batch, 1)), 1, random.choice((rows, 1)), positions
    rng = np.random.default_rng(random.getrandbits(32))
    kind = random.choice(("none", "behind", "any", "rows"))
    if kind == "none":
        return np.zeros(shape, np.int8)
    if kind == "behind":
        return (np.arange(positions) > rng.integers(0, positions, (*shape[:3], 1))).astype(np.int8)
    hidden = rng.random(shape) < random.choice((0.1, 0.5, 0.95))
    return (hidden | (rng.random((*shape[:3], 1)) < 0.5 * (kind == "rows"))).astype(np.int8)


def real(random: Random, few: bool = False) -> Case:
    """An Attention."""
    batch, heads, shared, rows, positions, depth, width = sizes(random, few)
    rng = np.random.default_rng(random.getrandbits(32))
    shapes = (batch, heads, rows, depth), (batch, shared, positions, depth), (batch, shared, positions, width)
    q, k, v = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    size = np.float32(10.0 ** random.uniform(-2, 2))
    hidden = hiding(random, batch, rows, positions)
    return Case(Attention(random.choice((1.0, 0.1767766922712326)), random.random() < 0.5),
                (q * size, k, v, hidden), ())  # fmt: skip


def codes(random: Random, few: bool = False) -> Case:
    """An AttentionOnRows."""
    batch, heads, shared, rows, positions, depth, width = sizes(random, few)
    rng = np.random.default_rng(random.getrandbits(32))
    shapes = (batch, heads, rows, depth), (batch, shared, positions, depth), (batch, shared, positions, width)
    ends = (1, 128) if random.random() < 0.2 else (-127, 128)
    of_rows = [rng.integers(*ends, shape).astype(np.int8) for shape in shapes]
    scales = [np.exp(rng.uniform(-6, -3, (*shape[:3], 1))).astype(np.float32) for shape in shapes]
    hidden = hiding(random, batch, rows, positions)
    op = AttentionOnRows(random.choice((1.0, 0.1767766922712326)), random.random() < 0.5)
    return Case(op, (*of_rows, hidden, *scales), ())


def few_real(random: Random) -> Case:
    """One of few numbers."""
    return real(random, few=True)


def few_codes(random: Random) -> Case:
    """One of few numbers."""
    return codes(random, few=True)


KINDS = (real, codes)
FEW = (few_real, few_codes)
