"""Random operators of transformers, and group norms: odd rows, extremes, masks of every shape."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
from int16_cases import int16
from kernel_cases import Case, conv_case, dense_case, int8, matmul_case

from hwptq.kernels.constant_frame import without_frame
from hwptq.kernels.epilogue import Follower
from hwptq.operators.add import WIDE_FRACTION_BITS, Add
from hwptq.operators.conv2d import Conv2d
from hwptq.operators.dense import Dense
from hwptq.operators.embedding import Embedding
from hwptq.operators.group_norm import GroupNorm
from hwptq.operators.masked_pool import MaskedMax, MaskedMean
from hwptq.operators.matmul import MatMul
from hwptq.operators.norm import LayerNorm, RmsNorm
from hwptq.operators.softmax import Softmax
from hwptq.quant.fixed_point import quantize_multiplier
from hwptq.quant.integer_norm import norm_constants
from hwptq.quant.integer_softmax import exponent

_LEADS: tuple[tuple[int, ...], ...] = ((), (3,), (2, 3), (2, 1, 4))
_COUNTS = (1, 2, 7, 16, 33, 64, 100, 129, 257)


def softmax(random: Random) -> Case:
    """A Softmax; a mask hides values of its own, of each row, of each matrix, or whole rows."""
    lead, count = random.choice(_LEADS), random.choice(_COUNTS)
    x, by = (
        random.choice((int8, int16))(random, *lead, count),
        exponent(random.choice((1e-4, 0.01, 0.1, 30.0))),
    )
    fields = by.factor, by.shift, by.reach
    if random.choice((True, False)):
        return Case(Softmax(*fields), (x,), ())
    shape = random.choice(((*lead, count), (count,), (*lead, 1), (*(1 for _ in lead), count)))
    rng = np.random.default_rng(random.getrandbits(32))
    hidden = (rng.random(shape) < random.choice((0.0, 0.5, 1.0))).astype(np.int8)
    return Case(Softmax(*fields, masked=True, alike=random.choice((True, False))), (x, hidden), ())


def norm(random: Random) -> Case:
    """A LayerNorm or an RmsNorm, of rows of any spread."""
    kind, lead, count = random.choice((LayerNorm, RmsNorm)), random.choice(_LEADS), random.choice(_COUNTS)
    x = random.choice((int8, int16))(random, *lead, count)
    x = (x >> random.choice((0, 0, 3, 7))).astype(x.dtype)
    rng = np.random.default_rng(random.getrandbits(32))
    gamma, beta = rng.normal(size=(2, count))
    out = random.choice(("int8", "int16"))
    scale, eps = 2.0 ** -random.randint(2, 12), random.choice((0.0, 1e-12, 1e-5, 1.0))
    found = norm_constants(gamma, beta, eps, 2.0 ** -random.randint(0, 12), scale)
    wide = np.iinfo(out)
    zero = random.choice((-128, 0, 5)) if out == "int8" else 0
    op = kind(found.eps, found.shift, zero, int(wide.min), int(wide.max), out)
    return Case(op, (x,), (found.multiplier, found.bias))


def group_norm(random: Random) -> Case:
    """A GroupNorm of images, of any spread, groups and channels, those between two vectors too."""
    groups, size = random.choice(((1, 1), (1, 7), (3, 1), (4, 8), (2, 17), (33, 1), (5, 13), (1, 64)))
    shape = random.choice((1, 2)), random.randint(1, 5), random.randint(1, 5), groups * size
    x = random.choice((int8, int16))(random, *shape)
    x = (x >> random.choice((0, 0, 3, 7))).astype(x.dtype)
    rng = np.random.default_rng(random.getrandbits(32))
    gamma, beta = rng.normal(size=(2, groups * size))
    out = random.choice(("int8", "int16"))
    scale, eps = 2.0 ** -random.randint(2, 12), random.choice((0.0, 1e-12, 1e-5, 1.0))
    count = size * shape[1] * shape[2]
    found = norm_constants(gamma, beta, eps, 2.0 ** -random.randint(0, 12), scale, count)
    wide = np.iinfo(out)
    zero = random.choice((-128, 0, 5)) if out == "int8" else 0
    low = random.choice((int(wide.min), zero))
    op = GroupNorm(groups, found.eps, found.shift, zero, low, int(wide.max), out)
    return Case(op, (x,), (found.multiplier, found.bias))


def product(random: Random) -> Case:
    """A Dense or a MatMul from bytes to int16; behind a Dense may be an Add of the same."""
    case = random.choice((dense_case, matmul_case))(random)
    lo, hi = random.choice(((-(2**15), 2**15 - 1), (0, 12345)))
    shift = random.choice((1, 9, 14))
    op: Dense | MatMul
    if isinstance(case.op, Dense):
        weight, bias, multiplier, shifts = case.constants
        op = replace(case.op, out_zero_point=0, lo=lo, hi=hi, out="int16")
        return replace(case, op=op, constants=(weight, bias, multiplier, np.full_like(shifts, shift)))
    assert isinstance(case.op, MatMul)
    return replace(case, op=replace(case.op, out_zero_point=0, lo=lo, hi=hi, out="int16", shift=shift))


def convolution(random: Random) -> Case:
    """A Conv2d from bytes to int16, as a norm of its images reads them; one in groups is portable code."""
    groups, each = random.choice(((1, 16), (1, 33), (1, 3), (2, 8), (5, 1)))
    outputs = groups * random.choice((1, 8, 17, 32))
    case = conv_case(random, groups * each, outputs, groups)
    lo, hi = random.choice(((-(2**15), 2**15 - 1), (0, 12345)))
    weight, bias, multiplier, shifts = case.constants
    op = replace(case.op, out_zero_point=0, lo=lo, hi=hi, out="int16")
    shifts = np.full_like(shifts, random.choice((1, 5, 9)))
    return replace(case, op=op, constants=(weight, bias, multiplier, shifts))


def residual(random: Random) -> Case:
    """A Dense or a Conv2d to int16 and an Add behind it."""
    case = random.choice((product, convolution))(random)
    plain = (
        isinstance(case.op, Conv2d) and case.op.groups == 1 and without_frame(case.op, case.constants) is None
    )
    if not plain and not isinstance(case.op, Dense):
        return residual(random)
    one = 2**WIDE_FRACTION_BITS
    factors = [random.choice((one, -one, 4321)) for _ in range(2)]
    rest = random.randrange(2**30, 2**31), random.choice((1, 9, 14)), 0, -(2**15), 2**15 - 1
    follower = Follower(Add(0, 0, *factors, *rest, out="int16"), second=random.choice((True, False)))
    other = int16(random, *case.expected().shape)
    return replace(case, activations=(*case.activations, other), followers=(follower,))


def embedding(random: Random) -> Case:
    """An Embedding, of numbers beyond the table too."""
    rows, count = random.choice((1, 5, 40)), random.choice(_COUNTS)
    rng = np.random.default_rng(random.getrandbits(32))
    index = rng.integers(-2, rows + 2, random.choice(_LEADS)).astype(random.choice((np.int32, np.int64)))
    multiplier = rng.integers(2**30, 2**31, rows).astype(np.int32)
    shift = rng.integers(10, 24, rows).astype(np.int32)
    out = random.choice(("int8", "int16"))
    wide = np.iinfo(out)
    zero = random.choice((-128, 0, 5)) if out == "int8" else 0
    op = Embedding(zero, int(wide.min), int(wide.max), out)
    return Case(op, (index,), (int8(random, rows, count), multiplier, shift))


def masked_pool(random: Random) -> Case:
    """A MaskedMean or a MaskedMax, of all tokens, some, or none of a row."""
    rows, tokens, channels = random.choice((1, 3)), random.choice((1, 5, 40)), random.choice(_COUNTS)
    x = random.choice((int8, int16))(random, rows, tokens, channels)
    rng = np.random.default_rng(random.getrandbits(32))
    shown = (rng.random((rows, tokens)) < random.choice((0.0, 0.5, 1.0))).astype(np.int8)
    if random.choice((True, False)):
        return Case(MaskedMax(), (x, shown), ())
    counts = np.maximum(np.arange(tokens + 1), 1)
    left = np.log2((2**30 - 1) / (counts * 2 ** (8 * x.itemsize))).astype(np.int32)
    out = random.choice(("int8", "int16"))
    scales = quantize_multiplier(2.0 ** -random.randint(0, 4) / (2.0**left * counts))
    wide, zero = np.iinfo(out), random.choice((-128, 0, 5)) if out == "int8" else 0
    entered = random.choice((-128, 0, 127)) if x.dtype == np.int8 else 0
    op = MaskedMean(entered, zero, int(wide.min), int(wide.max), out)
    return Case(op, (x, shown), (left, *scales))


KINDS = (softmax, norm, group_norm, product, convolution, embedding, masked_pool)
