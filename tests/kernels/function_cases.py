"""Random functions of float32, of numbers of every size."""

from __future__ import annotations

from random import Random

import numpy as np
from kernel_cases import Case

from hwptq.operators.real_sigmoid import RealSigmoid


def sigmoid(random: Random) -> Case:
    """A RealSigmoid."""
    rng = np.random.default_rng(random.getrandbits(32))
    shape = random.choice(((1, 1, 64), (3, 17), (1, 5), (2, 3, 7)))
    x = rng.standard_normal(shape) * 10.0 ** rng.uniform(-3, 3, shape)
    return Case(RealSigmoid(), (np.where(rng.random(shape) < 0.1, 0, x).astype(np.float32),), ())


KINDS = (sigmoid,)
