"""Random operators on weights by group: every format, odd depths, both forms of scales, also zeros."""

from __future__ import annotations

from random import Random

import numpy as np
from kernel_cases import Case, int8

from hwptq.formats import format_of
from hwptq.operators.group_dense import GroupDense, GroupDequantize, GroupEmbedding
from hwptq.quant.group_codes import byte_scales, group_count, pack_rows, short_scales

WEIGHTS = ("int8", "int4", "int3", "int2", "levels_1_3", "levels_1_4")


def rows(random: Random, weight: str, count: int, depth: int, size: int) -> tuple[np.ndarray, ...]:
    """(codes, scales, perhaps zeros): any codes, or one code everywhere."""
    found = format_of(weight)
    rng = np.random.default_rng(random.getrandbits(32))
    index = rng.integers(0, 2**found.bits, (count, depth))
    if random.random() < 0.2:
        index[:] = random.choice((0, 2**found.bits - 1))
    shape = count, group_count(depth, size)
    scales = (rng.standard_normal(shape) * 10.0 ** rng.uniform(-4, 3, shape)).astype(np.float32)
    if random.random() < 0.7:
        scales = random.choice((short_scales, byte_scales))(scales)
    zeros = rng.integers(-9, 9, shape).astype(np.int8)
    arrays = pack_rows(found.from_codes(index), found), scales
    return (*arrays, zeros) if random.random() < 0.3 else arrays


def dense(random: Random, channels: int | None = None) -> Case:
    """A GroupDense, of one token or of several."""
    weight, size = random.choice(WEIGHTS), random.choice((8, 16, 32, 64, 128))
    depth = size * random.randint(1, 4) if random.random() < 0.7 else random.randint(1, 3 * size)
    count = channels or random.choice((1, 5, 16, 17, 33, 64, 80))
    lead = random.choice(((1,), (7,), (1, 1), (2, 9)))
    x = int8(random, *lead, depth)
    return Case(GroupDense(weight, size, depth), (x,), rows(random, weight, count, depth, size))


def embedding(random: Random) -> Case:
    """A GroupEmbedding, of numbers beyond the table too."""
    weight, size, count = (
        random.choice(WEIGHTS),
        random.choice((8, 16, 32)),
        random.choice((1, 5, 33, 40, 80)),
    )
    depth = size * random.randint(1, 4) if random.random() < 0.7 else random.randint(1, 3 * size)
    rng = np.random.default_rng(random.getrandbits(32))
    lead = random.choice(((), (3,), (2, 3)))
    index = rng.integers(-2, count + 2, lead).astype(random.choice((np.int32, np.int64)))
    return Case(GroupEmbedding(weight, size, depth), (index,), rows(random, weight, count, depth, size))


def dequantize(random: Random) -> Case:
    """A GroupDequantize."""
    weight, size, count = random.choice(WEIGHTS), random.choice((8, 16, 32)), random.choice((1, 5, 9))
    depth, transposed = random.randint(1, 3 * size), random.choice((True, False))
    codes, *rest = rows(random, weight, count, depth, size)
    return Case(GroupDequantize(weight, size, depth, transposed), (codes,), tuple(rest))


KINDS = (dense, embedding, dequantize)
