"""Random operators with int16 activations, at the limits of the format too."""

from __future__ import annotations

from random import Random

import numpy as np
from kernel_cases import Case, int8

from hwptq.formats import INT8, INT12, INT16
from hwptq.operators.add import WIDE_FRACTION_BITS, Add
from hwptq.operators.avg_pool import AvgPool
from hwptq.operators.clamp import Clamp
from hwptq.operators.conv2d import Conv2d
from hwptq.operators.dense import Dense, DenseFloat
from hwptq.operators.dequantize import Dequantize
from hwptq.operators.lookup import Lookup
from hwptq.operators.matmul import MatMul
from hwptq.operators.max_pool import MaxPool
from hwptq.operators.mul import Mul
from hwptq.operators.pad import Pad
from hwptq.operators.quantize import Quantize
from hwptq.operators.rescale import Rescale
from hwptq.operators.resize import Resize
from hwptq.quant.fixed_point import shortening
from hwptq.quant.window import conv_output_shape

_CHANNELS = (1, 3, 8, 17, 33)
#: Groups, input channels of each, output channels of each.
_GROUPS = ((1, 5, 7), (1, 16, 16), (1, 67, 33), (3, 1, 1), (2, 8, 3), (17, 1, 1), (64, 1, 1), (80, 1, 1))


def int16(random: Random, *shape: int) -> np.ndarray:
    """int16 values: random, or each at one of both limits."""
    rng = np.random.default_rng(random.getrandbits(32))
    if random.choice((True, False, False)):
        return rng.choice(np.array([INT16.qmin, INT16.qmax], np.int16), shape)
    return rng.integers(INT16.qmin, INT16.qmax + 1, shape).astype(np.int16)


def _image(random: Random) -> np.ndarray:
    return int16(
        random, random.choice((1, 2)), random.randint(1, 5), random.randint(1, 5), random.choice(_CHANNELS)
    )


def _output(random: Random) -> tuple[int, int, int, str]:
    """Zero point, lo, hi and dtype: int16, or int8 of any zero point."""
    if random.choice((True, False)):
        return 0, *random.choice(((INT16.qmin, INT16.qmax), (0, 12345))), INT16.name
    return random.choice((-128, -3, 0, 127)), *random.choice(((-128, 127), (-5, 90))), INT8.name


def _constants(random: Random, weight: np.ndarray, most: int) -> tuple[int, tuple[np.ndarray, ...]]:
    """(acc_shift, (bias, multiplier, shift)) of a layer on values up to `most`."""
    rng = np.random.default_rng(random.getrandbits(32))
    channels = len(weight)
    bias = rng.integers(-(2**28), 2**28, channels).astype(np.int32)
    reach = np.abs(weight.reshape(channels, -1).astype(np.int64)).sum(axis=1).max() * most + 2**28
    multiplier = rng.integers(2**30, 2**31, channels).astype(np.int32)
    return shortening(float(reach)), (bias, multiplier, rng.integers(10, 20, channels).astype(np.int32))


def conv(random: Random) -> Case:
    """A Conv2d, grouped or not; x is int16, or int8 where the result is int16."""
    groups, per_group, multiple = random.choice(_GROUPS)
    kernel, strides = random.choice(((1, 1), (3, 3), (2, 3), (1, 5))), random.choice(((1, 1), (2, 2)))
    padding = random.choice(((0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 2, 0)))
    dilation = random.choice(((1, 1), (1, 1), (2, 1)))
    weight = int8(random, groups * multiple, *kernel, per_group)
    shape = random.choice((1, 2)), random.randint(5, 9), random.randint(5, 20), groups * per_group
    zero, lo, hi, out = _output(random)
    if out == INT16.name and random.choice((True, False)):
        x, bits, in_zero = int8(random, *shape), 8, random.choice((-128, 5))
    else:
        x, bits, in_zero = int16(random, *shape), 16, 0
    by, constants = _constants(random, weight, 2 ** (bits - 1))
    op = Conv2d(
        strides, padding, dilation, groups, in_zero, zero, lo, hi, activation_bits=bits, out=out, acc_shift=by
    )
    return Case(op, (x,), (weight, *constants))


def dense(random: Random) -> Case:
    """A Dense or a DenseFloat; long ones need sums of more than 32 bits."""
    depth, channels = random.choice((1, 7, 100, 400, 1025)), random.choice((1, 5, 33, 64))
    x, weight = int16(random, *random.choice(((1,), (3,), (17,), ())), depth), int8(random, channels, depth)
    by, constants = _constants(random, weight, 2**15)
    if random.choice((True, False, False)):
        scale = np.float32(np.exp2(np.random.default_rng(depth).uniform(-30, 0, channels)))
        return Case(DenseFloat(activation_bits=16, acc_shift=by), (x,), (weight, constants[0], scale))
    zero, lo, hi, out = _output(random)
    op = Dense(0, zero, lo, hi, activation_bits=16, out=out, acc_shift=by)
    return Case(op, (x,), (weight, *constants))


def _scale(random: Random) -> tuple[int, int]:
    """Multiplier and shift."""
    return random.randrange(2**30, 2**31), random.choice((1, 9, 14, 20))


def matmul(random: Random) -> Case:
    """A MatMul of int16, or of int16 and int8."""
    rows, depth, columns = (random.choice((1, 3, 17, 40)) for _ in range(3))
    a = int16(random, *random.choice(((), (2,))), rows, depth)
    b, zero = random.choice(((int16(random, depth, columns), 0), (int8(random, depth, columns), -7)))
    by = shortening(depth * 2.0**15 * (2**15 if b.dtype == a.dtype else 255))
    zero_out, lo, hi, out = _output(random)
    op = MatMul(0, zero, *_scale(random), zero_out, lo, hi, 16, out, by)
    return Case(op, (a, b), ())


def binary(random: Random) -> Case:
    """An Add or a Mul of int16, or of int16 and int8; one operand may be broadcast."""
    a = _image(random)
    shape = random.choice((a.shape, a.shape, (1, 1, 1, a.shape[3]), ()))
    b, zero = random.choice(((int16(random, *shape), 0), (int8(random, *shape), -128)))
    zero_out, lo, hi, out = _output(random)
    rest = *_scale(random), zero_out, lo, hi
    if random.choice((True, False)):
        one = 2**WIDE_FRACTION_BITS
        factors = (random.choice((one, -one, 4321)) for _ in range(2))
        return Case(Add(0, zero, *factors, *rest, out=out), (a, b), ())
    return Case(Mul(0, zero, *rest, left_shift=-1 if b.dtype == a.dtype else 6, out=out), (a, b), ())


def elementwise(random: Random) -> Case:
    """A Rescale, a Clamp, a Pad, a Resize or a Lookup."""
    x, rng = _image(random), np.random.default_rng(random.getrandbits(32))
    tables = ("table", "table of bytes", "table of int12", "table to int16")
    kind = random.choice(("rescale", "clamp", "pad", "resize", *tables))
    if kind == "rescale":
        return Case(Rescale(*_scale(random), *_output(random)), (x,), ())
    if kind == "clamp":
        limits = np.sort(np.stack([int16(random, x.shape[3]) for _ in range(2)]), axis=0)
        return Case(Clamp(), (x,), tuple(limits))
    if kind == "pad":
        before, after = (tuple(random.randrange(3) for _ in x.shape) for _ in range(2))
        return Case(Pad(before, after, random.choice((0, -300))), (x,), ())
    if kind == "resize":
        indices = (rng.integers(0, n, random.randint(1, 7)).astype(np.int32) for n in x.shape[1:3])
        return Case(Resize(), (x,), tuple(indices))
    if kind == "table of int12":
        held = np.clip(x, INT12.qmin, INT12.qmax)
        return Case(Lookup(), (held,), (random.choice((int8, int16))(random, 2**12),))
    if kind == "table to int16":
        return Case(Lookup(), (int8(random, *x.shape),), (int16(random, 256),))
    table = int16(random, 2**16) if kind == "table" else int8(random, 2**16)
    return Case(Lookup(), (x,), (table,))


def pool(random: Random) -> Case:
    """A MaxPool or an AvgPool."""
    x = _image(random)
    size = tuple(random.randint(1, n) for n in x.shape[1:3])
    padding = tuple(random.randrange((n + 1) // 2) for n in (*size, *size))
    out = conv_output_shape(x.shape[1:3], size, (1, 1), padding, (1, 1))
    if random.choice((True, False)):
        return Case(MaxPool(size, (1, 1), padding, (1, 1), out), (x,), ())
    rng = np.random.default_rng(random.getrandbits(32))
    multiplier = rng.integers(2**30, 2**31, out[0] * out[1]).astype(np.int32)
    shift = rng.integers(4, 16, out[0] * out[1]).astype(np.int32)
    *rest, dtype = _output(random)
    return Case(AvgPool(size, (1, 1), padding, out, 2**10, 0, *rest, dtype), (x,), (multiplier, shift))


def border(random: Random) -> Case:
    """A Quantize or a Dequantize."""
    x, scale = _image(random), float(np.float32(random.choice((0.02, 1 / 3, 7.7))))
    if random.choice((True, False)):
        return Case(Dequantize(scale, 0), (x,), ())
    values = (x * np.float32(scale) * np.float32(random.choice((0.5, 1, 1.3)))).astype(np.float32)
    return Case(Quantize(scale, 0, INT16.name), (values,), ())


KINDS = (conv, dense, matmul, binary, elementwise, pool, border)


def random_case(random: Random) -> Case:
    """A case of any of them."""
    return random.choice(KINDS)(random)
