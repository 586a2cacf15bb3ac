"""Random functions of float32, of numbers of every size, and rows that prompts write into caches."""

from __future__ import annotations

from random import Random

import numpy as np
from kernel_cases import Case

from hwptq.operators.real_arithmetic import FUNCTIONS, RealArithmetic
from hwptq.operators.real_norm import RealLayerNorm, RealRmsNorm
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


def arithmetic(random: Random) -> Case:
    """A RealArithmetic of tensors that broadcast, of a single value too, zeros of both signs among them."""
    rng, rank = np.random.default_rng(random.getrandbits(32)), random.randint(0, 4)
    out = [random.choice((1, 2, 3, 8, 17, 32)) for _ in range(rank)]
    shapes = [[n if random.random() < 0.7 else 1 for n in out][random.randint(0, rank) :] for _ in "ab"]
    a, b = (rng.standard_normal(s) * 10.0 ** rng.uniform(-3, 3, s) for s in shapes)
    a = np.where(rng.random(np.shape(a)) < 0.2, random.choice((0.0, -0.0)), a)
    values = tuple(np.asarray(x, np.float32) for x in (a, b))
    return Case(RealArithmetic(random.choice(list(FUNCTIONS))), values, ())


def norm(random: Random) -> Case:
    """A RealRmsNorm or RealLayerNorm, of rows of zeros too."""
    rng = np.random.default_rng(random.getrandbits(32))
    shape = random.choice(((1, 3, 64), (5, 17), (1, 5), (2, 3, 7), (9,), (4, 1), (2, 100)))
    x = (rng.standard_normal(shape) * 10.0 ** rng.uniform(-3, 3)).astype(np.float32)
    x[rng.random(shape[:-1]) < 0.2] = 0
    vectors = tuple(rng.standard_normal((2, shape[-1])).astype(np.float32))
    eps = random.choice((1e-5, 1e-12))
    if random.random() < 0.5:
        return Case(RealRmsNorm(eps), (x,), vectors[:1])
    return Case(RealLayerNorm(eps), (x,), vectors)


KINDS = (sigmoid, rows, arithmetic, norm)
