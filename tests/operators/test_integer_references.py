"""The numpy reference of every integer operator against a naive definition, exactly."""

from __future__ import annotations

import attention_cases
import function_cases
import group_cases
import int16_cases
import naive
import numpy as np
import pytest
import transformer_cases
from elementwise_cases import rows
from hypothesis import given, settings
from hypothesis import strategies as st
from recurrent_cases import recurrent_case

from hwptq.ir.operator import Operator, from_json, operators, to_json
from hwptq.operators.add import Add
from hwptq.operators.avg_pool import AvgPool
from hwptq.operators.clamp import Clamp
from hwptq.operators.conv2d import Conv2d
from hwptq.operators.dense import Dense, DenseFloat
from hwptq.operators.dequantize import Dequantize
from hwptq.operators.float_operator import FloatOperator
from hwptq.operators.lookup import Lookup
from hwptq.operators.matmul import MatMul
from hwptq.operators.max_pool import MaxPool
from hwptq.operators.mul import Mul
from hwptq.operators.pad import Pad
from hwptq.operators.quantize import Quantize
from hwptq.operators.resize import Resize
from hwptq.quant.integer_sums import exact_matmul

zero_points = st.sampled_from((-128, -3, 0, 5, 127))
multipliers, shifts = st.integers(2**30, 2**31 - 1), st.integers(1, 31)
factors = st.integers(-(2**20), 2**20)
#: zero point of the output and its bounds
outputs = st.tuples(zero_points, st.sampled_from(((-128, 127), (-5, 90), (-128, -128), (3, 127))))
small, pairs = st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3))
paddings = st.tuples(*[st.integers(0, 2)] * 4)
seeds = st.integers(0, 2**32 - 1)
two_zero_points = st.tuples(zero_points, zero_points)
#: groups, channels in, channels out
channel_counts = st.sampled_from(((1, 1, 1), (1, 3, 2), (2, 4, 6), (3, 3, 3), (2, 2, 4)))
#: leading axes of two matrices, two operands, that broadcast
leading = st.sampled_from((((), ()), ((2,), (2,)), ((2, 1), (3,)), ((), (2,))))
broadcasts = st.sampled_from((((3, 2), (3, 2)), ((2, 3, 1), (1, 4)), ((5,), (1,)), ((), (2,))))


def int8(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Values anywhere in int8, or at its limits only."""
    if rng.random() < 0.3:
        return rng.choice(np.array([-128, 127], np.int8), shape)
    return rng.integers(-128, 128, shape).astype(np.int8)


def constants(rng: np.random.Generator, channels: int) -> list[np.ndarray]:
    """Bias, multiplier and shift per channel."""
    limits = ((-(2**16), 2**16), (2**30, 2**31), (1, 16))
    return [rng.integers(low, high, channels).astype(np.int32) for low, high in limits]


def check(op: Operator, *args: np.ndarray) -> None:
    """Fail unless reference and definition give the same array."""
    expected, found = naive.evaluate(op, *args), op.reference(*args)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(found, expected, err_msg=str(op))


@settings(max_examples=60, deadline=None)
@given(seeds, pairs, pairs, pairs, paddings, channel_counts, zero_points, outputs)
def test_conv2d(seed, size, strides, dilation, padding, channels, zero_point, output):
    rng = np.random.default_rng(seed)
    groups, channels_in, channels_out = channels
    least = [max(1, dilation[i] * (size[i] - 1) + 1 - padding[i] - padding[i + 2]) for i in (0, 1)]
    x = int8(rng, 2, least[0] + int(rng.integers(3)), least[1] + int(rng.integers(3)), channels_in)
    out_zero, bounds = output
    op = Conv2d(strides, padding, dilation, groups, zero_point, out_zero, *bounds)
    check(op, x, int8(rng, channels_out, *size, channels_in // groups), *constants(rng, channels_out))


@settings(max_examples=40, deadline=None)
@given(seeds, st.lists(small, max_size=2), st.sampled_from((1, 7, 300)), small, zero_points, outputs)
def test_dense(seed, lead, depth, channels, zero_point, output):
    rng = np.random.default_rng(seed)
    op = Dense(zero_point, output[0], *output[1])
    check(op, int8(rng, *lead, depth), int8(rng, channels, depth), *constants(rng, channels))


@settings(max_examples=60, deadline=None)
@given(seeds, st.lists(small, max_size=2), st.sampled_from((1, 7, 300)), small, st.integers(0, 29))
def test_dense_float(seed, lead, depth, channels, bits):
    rng = np.random.default_rng(seed)
    bias = rng.integers(-(2**bits), 2**bits + 1, channels).astype(np.int32)
    scale = np.exp2(rng.uniform(-30, 4, channels)).astype(np.float32)
    check(DenseFloat(), int8(rng, *lead, depth), int8(rng, channels, depth), bias, scale)


@settings(max_examples=40, deadline=None)
@given(seeds, leading, pairs, st.sampled_from((1, 5, 270)), two_zero_points, multipliers, shifts, outputs)
def test_matmul(seed, lead, sides, depth, zeros, multiplier, shift, output):
    rng = np.random.default_rng(seed)
    op = MatMul(*zeros, multiplier, shift, output[0], *output[1])
    check(op, int8(rng, *lead[0], sides[0], depth), int8(rng, *lead[1], depth, sides[1]))


@settings(max_examples=60, deadline=None)
@given(seeds, broadcasts, two_zero_points, factors, factors, multipliers, shifts, outputs)
def test_add(seed, shapes, zeros, a_factor, b_factor, multiplier, shift, output):
    rng = np.random.default_rng(seed)
    op = Add(*zeros, a_factor, b_factor, multiplier, shift, output[0], *output[1])
    check(op, *(int8(rng, *shape) for shape in shapes))


@settings(max_examples=60, deadline=None)
@given(seeds, broadcasts, two_zero_points, multipliers, shifts, outputs)
def test_mul(seed, shapes, zeros, multiplier, shift, output):
    rng = np.random.default_rng(seed)
    op = Mul(*zeros, multiplier, shift, output[0], *output[1])
    check(op, *(int8(rng, *shape) for shape in shapes))


@settings(max_examples=30, deadline=None)
@given(seeds, st.lists(small, max_size=3), small)
def test_clamp(seed, lead, channels):
    rng = np.random.default_rng(seed)
    bounds = np.sort(int8(rng, 2, channels), axis=0)
    check(Clamp(), int8(rng, *lead, channels), *bounds)


def test_lookup_at_every_value():
    table = int8(np.random.default_rng(0), 256)
    check(Lookup(), np.arange(-128, 128, dtype=np.int8).reshape(4, 64), table)


narrow_paddings = st.tuples(*[st.integers(0, 1)] * 4)
#: image, size, strides, ceil mode
pools = st.tuples(st.tuples(st.integers(3, 6), st.integers(3, 6)), pairs, pairs, st.booleans())


def pool_shape(image, size, strides, padding, dilation, ceil) -> tuple[int, int]:
    """Output rows and columns; in ceil mode a last window may hang over, but starts inside."""
    out = []
    for i in (0, 1):
        room = image[i] + padding[i] + padding[i + 2] - dilation[i] * (size[i] - 1) - 1
        n = (-(-room // strides[i]) if ceil else room // strides[i]) + 1
        out.append(n - 1 if (n - 1) * strides[i] >= image[i] + padding[i] else n)
    return out[0], out[1]


@settings(max_examples=60, deadline=None)
@given(seeds, pools, narrow_paddings, st.sampled_from(((1, 1), (1, 2), (2, 1))))
def test_max_pool(seed, pool, padding, dilation):
    image, size, strides, ceil = pool
    size = tuple(min(s, 2) if d == 2 else s for s, d in zip(size, dilation, strict=True))
    out = pool_shape(image, size, strides, padding, dilation, ceil)
    op = MaxPool(size, strides, padding, dilation, out)
    check(op, int8(np.random.default_rng(seed), 2, *image, 3))


@settings(max_examples=60, deadline=None)
@given(seeds, pools, narrow_paddings, st.sampled_from((1, 77, 2**12)), zero_points, outputs)
def test_avg_pool(seed, pool, padding, factor, zero_point, output):
    image, size, strides, ceil = pool
    rng, out = np.random.default_rng(seed), pool_shape(image, size, strides, padding, (1, 1), ceil)
    op = AvgPool(size, strides, padding, out, factor, zero_point, output[0], *output[1])
    _, multiplier, shift = constants(rng, out[0] * out[1])
    check(op, int8(rng, 2, *image, 3), multiplier, shift)


@settings(max_examples=40, deadline=None)
@given(seeds, pairs, pairs, small)
def test_resize(seed, image, out, channels):
    rng = np.random.default_rng(seed)
    rows, columns = (rng.integers(0, n, m).astype(np.int32) for n, m in zip(image, out, strict=True))
    check(Resize(), int8(rng, 2, *image, channels), rows, columns)


#: extent, before, after
padded_axes = st.lists(st.tuples(small, st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(seeds, padded_axes, st.integers(-128, 127))
def test_pad(seed, axes, value):
    shape, before, after = zip(*axes, strict=True)
    check(Pad(before, after, value), int8(np.random.default_rng(seed), *shape))


scales = st.floats(2.0**-20, 2.0**10, width=32)


@given(scales, zero_points, st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=8))
def test_quantize(scale, zero_point, values):
    check(Quantize(scale, zero_point), np.array(values, np.float32))


@given(scales, zero_points)
def test_quantize_rounds_halves_to_even(scale, zero_point):
    scale = 2.0 ** round(np.log2(scale))  # a power of two: the halves are exact
    check(Quantize(scale, zero_point), (np.arange(-300, 300) * scale / 2).astype(np.float32))


@given(scales, zero_points)
def test_dequantize(scale, zero_point):
    check(Dequantize(scale, zero_point), np.arange(-128, 128, dtype=np.int8))


@given(scales, zero_points)
def test_quantize_undoes_dequantize(scale, zero_point):
    ints = np.arange(-128, 128, dtype=np.int8)
    real = Dequantize(scale, zero_point).reference(ints)
    np.testing.assert_array_equal(Quantize(scale, zero_point).reference(real), ints)


@given(st.integers(1, 700), st.integers(0, 2**32 - 1))
def test_matrix_products_through_floats_are_exact(depth, seed):
    rng = np.random.default_rng(seed)
    a = rng.choice(np.array([-255, 254, 255]), (2, depth))
    b = rng.choice(np.array([-255, 254, 255]), (depth, 2))
    np.testing.assert_array_equal(exact_matmul(a, b), a @ b)


@pytest.mark.parametrize(
    "kind",
    [
        *int16_cases.KINDS,
        *transformer_cases.KINDS,
        *group_cases.KINDS,
        *attention_cases.FEW,
        *function_cases.KINDS,
        recurrent_case,
        rows,
    ],
    ids=lambda kind: kind.__name__,
)
@settings(max_examples=10, deadline=None)
@given(random=st.randoms(use_true_random=False))
def test_int16_and_transformers(kind, random):
    case = kind(random)
    check(case.op, *case.activations, *case.constants)


def test_every_operator_on_integers_has_a_definition():
    here = {op for op in operators().values() if op.__module__.startswith("hwptq.")}
    assert {op for op in here if not issubclass(op, FloatOperator)} == set(naive._FUNCTIONS)


@pytest.mark.parametrize(
    "op",
    [
        Conv2d((1, 2), (0, 1, 2, 3), (1, 1), 4, -3, 5, -128, 127, 4, 8),
        Lookup(),
        Quantize(float(np.float32(0.1)), -128),
        Pad((0, 1), (2, 3), -7),
    ],
    ids=lambda op: op.kind,
)
def test_json_round_trip(op):
    assert from_json(to_json(op)) == op


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"kind": "conv9d"}', "unknown operator 'conv9d'"), ('{"kind": "pad"}', "pad: fields")],
)
def test_json_of_something_else(text, message):
    with pytest.raises(ValueError, match=message):
        from_json(text)
