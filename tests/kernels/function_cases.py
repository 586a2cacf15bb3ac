"""Random functions of float32, of numbers of every size, and rows that prompts write into caches."""

from __future__ import annotations

from random import Random

import numpy as np
from kernel_cases import Case

from hwptq.operators.real_sigmoid import RealSigmoid
from hwptq.operators.write_rows import WriteRows


def sigmoid(random: Random) -> Case:
    """A RealSigmoid."""
    rng = np.random.default_rng(random.getrandbits(32))
    shape = random.choice(((1, 1, 64), (3, 17), (1, 5), (2, 3, 7)))
    x = rng.standard_normal(shape) * 10.0 ** rng.uniform(-3, 3, shape)
    return Case(RealSigmoid(), (np.where(rng.random(shape) < 0.1, 0, x).astype(np.float32),), ())


def rows(random: Random) -> Case:
    """A WriteRows, also of more rows than there are, and of none."""
    rng, shape = np.random.default_rng(random.getrandbits(32)), random.choice(((1, 2, 7, 5), (6, 3), (1, 5)))
    axis, tokens = random.randint(-len(shape), -1), random.randint(1, 9)
    new = list(shape)
    new[axis] = tokens
    past, written = (rng.standard_normal(s).astype(np.float32) for s in (shape, new))
    if random.random() < 0.5:
        past, written = (np.round(t * 40).astype(np.int8) for t in (past, written))
    at, count = random.randint(-2, shape[axis] + 1), random.randint(0, tokens + 1)
    kind = random.choice((np.int32, np.int64))
    return Case(WriteRows(axis), (past, written, np.array([at], kind), np.array([count], kind)), ())


KINDS = (sigmoid, rows)
