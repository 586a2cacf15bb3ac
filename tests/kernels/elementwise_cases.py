"""Random operators without weights: elementwise, pooling, matmul, padding, and the border to float."""

from __future__ import annotations

from random import Random

import numpy as np
from kernel_cases import Case, int8

from hwptq.operators.add import Add
from hwptq.operators.avg_pool import AvgPool
from hwptq.operators.clamp import Clamp
from hwptq.operators.dequantize import Dequantize
from hwptq.operators.lookup import Lookup
from hwptq.operators.matmul import MatMul
from hwptq.operators.max_pool import MaxPool
from hwptq.operators.mul import Mul
from hwptq.operators.pad import Pad
from hwptq.operators.quantize import Quantize
from hwptq.operators.resize import Resize
from hwptq.operators.rows import RowQuantize, RowRescale, RowScale
from hwptq.quant.window import conv_output_shape

_CHANNELS = (1, 3, 10, 16, 31, 64, 100, 128, 130, 200, 257)
_ZERO_POINTS = (-128, -3, 0, 127)
_BOUNDS = ((-128, 127), (-128, 127), (-5, 90), (3, 3))


def _scale(random: Random) -> tuple[int, int, int, int, int]:
    """Multiplier, shift, zero point, lo and hi."""
    factor = random.randrange(2**30, 2**31)
    return factor, random.choice((1, 17, 20, 22, 31)), random.choice(_ZERO_POINTS), *random.choice(_BOUNDS)


def _image(random: Random) -> np.ndarray:
    h, w = random.randrange(1, 6), random.randrange(1, 6)
    return int8(random, random.choice((1, 1, 2)), h, w, random.choice(_CHANNELS))


def binary(random: Random) -> Case:
    """An Add or a Mul; one operand may be broadcast."""
    a = _image(random)
    shape = random.choice((a.shape, a.shape, (1, 1, 1, a.shape[3]), (1, *a.shape[1:3], 1), ()))
    operands = [a, int8(random, *shape)]
    random.shuffle(operands)
    zeros = [random.choice(_ZERO_POINTS) for _ in operands]
    if random.choice((True, False)):
        return Case(Mul(*zeros, *_scale(random)), tuple(operands), ())
    factors = [random.choice((-(2**20), 2**20, 700001, 3)) for _ in operands]
    return Case(Add(*zeros, *factors, *_scale(random)), tuple(operands), ())


def clamp(random: Random) -> Case:
    """A Clamp with bounds per channel."""
    x = _image(random)
    limits = np.sort(np.stack([int8(random, x.shape[3]) for _ in range(2)]), axis=0)
    return Case(Clamp(), (x,), tuple(limits))


def lookup(random: Random) -> Case:
    """A Lookup in a random table."""
    return Case(Lookup(), (_image(random),), (int8(random, 256),))


def pool(random: Random) -> Case:
    """A MaxPool or an AvgPool."""
    x = _image(random)
    size = tuple(random.randrange(1, n + 1) for n in x.shape[1:3])
    strides = random.choice(((1, 1), (2, 2), (1, 3)))
    padding = tuple(random.randrange((n + 1) // 2) for n in (*size, *size))
    out = conv_output_shape(x.shape[1:3], size, strides, padding, (1, 1))
    if random.choice((True, False)):
        return Case(MaxPool(size, strides, padding, (1, 1), out), (x,), ())
    rng = np.random.default_rng(random.getrandbits(32))
    multiplier = rng.integers(2**30, 2**31, out[0] * out[1]).astype(np.int32)
    shift = rng.integers(8, 16, out[0] * out[1]).astype(np.int32)
    _, _, *rest = _scale(random)
    op = AvgPool(size, strides, padding, out, 2**10, random.choice(_ZERO_POINTS), *rest)
    return Case(op, (x,), (multiplier, shift))


def resize(random: Random) -> Case:
    """A Resize that takes any pixels, some of them several times."""
    x, rng = _image(random), np.random.default_rng(random.getrandbits(32))
    tables = (rng.integers(0, n, random.randrange(1, 8)).astype(np.int32) for n in x.shape[1:3])
    return Case(Resize(), (x,), tuple(tables))


def pad(random: Random) -> Case:
    """A Pad of any axis."""
    x = _image(random)
    before, after = (tuple(random.randrange(3) for _ in x.shape) for _ in range(2))
    return Case(Pad(before, after, random.choice(_ZERO_POINTS)), (x,), ())


def matmul(random: Random) -> Case:
    """A MatMul, with a batch or without."""
    m, k, n = (random.choice((1, 3, 16, 130)) for _ in range(3))
    batch = random.choice(((), (2,), (3, 2)))
    a, b = int8(random, *batch, m, k), int8(random, *random.choice((batch, ())), k, n)
    zeros = [random.choice(_ZERO_POINTS) for _ in range(2)]
    return Case(MatMul(*zeros, *_scale(random)), (a, b), ())


def border(random: Random) -> Case:
    """A Quantize or a Dequantize."""
    scale, zero = float(np.float32(random.choice((0.02, 0.5, 1 / 3, 7.7)))), random.choice(_ZERO_POINTS)
    x = _image(random)
    if random.choice((True, False)):
        return Case(Dequantize(scale, zero), (x,), ())
    values = (x * np.float32(scale) * np.float32(random.choice((0.5, 1, 1.3)))).astype(np.float32)
    return Case(Quantize(scale, zero), (values,), ())


def rows(random: Random) -> Case:
    """A scale for each row, its codes, or what is multiplied by it; a row of zeros now and then."""
    rng = np.random.default_rng(random.getrandbits(32))
    shape = (*random.choice(((1,), (3,), (2, 3))), random.choice(_CHANNELS))
    x = rng.standard_normal(shape) * 10.0 ** rng.uniform(-4, 4, (*shape[:-1], 1))
    x = (x * random.choice((1, 1, 0, 1e-35))).astype(np.float32)
    scale = RowScale().reference(x)
    bias = rng.standard_normal(shape[-1]).astype(np.float32)
    bounds = random.choice(((-np.inf, np.inf), (0.0, np.inf), (-1.0, 2.0)))
    rescaled = Case(RowRescale(*bounds), (x, scale), (bias,))
    return random.choice((Case(RowScale(), (x,), ()), Case(RowQuantize(), (x, scale), ()), rescaled))


#: What every target computes, and what CPUs and HVX do.
KINDS = (binary, clamp, lookup, pool, pad, matmul, border)
CPU_KINDS = (*KINDS, resize, rows)
