"""The selected kernels against the reference, exactly, on this machine's CPU."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from unittest import mock

import elementwise_cases
import numpy as np
import pytest
from elementwise_cases import resize
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import (
    CHANNELS,
    Case,
    check,
    conv_case,
    dense_case,
    dense_float_case,
    depthwise_case,
    framed_case,
    image_case,
    in_layout,
    int8,
    layer_case,
    matmul_case,
    random_case,
    run,
    scales,
    type_of,
    with_followers,
    with_layouts,
)

from hwptq.backends.backend import why_not_run
from hwptq.kernels import matrix_multiply
from hwptq.kernels.dot_product import mac_of
from hwptq.kernels.mac import Mac
from hwptq.kernels.register_tile import Tile
from hwptq.kernels.schedule import Schedule
from hwptq.kernels.select import selector_of
from hwptq.kernels.tiled import Tiling, tiled_steps
from hwptq.operators import add
from hwptq.operators.add import Add
from hwptq.operators.avg_pool import AvgPool
from hwptq.operators.conv2d import Conv2d
from hwptq.operators.max_pool import MaxPool
from hwptq.targets import Descriptor, load_target
from hwptq.targets.templates.depthwise_dot_product import DepthwiseDotKernel
from hwptq.targets.templates.dot_product import DotProductKernel
from hwptq.targets.templates.matrix_multiply import MatrixMultiplyKernel
from hwptq.targets.templates.vector import VectorKernel
from hwptq.tir import vector_unit
from hwptq.tir.builder import cast, shuffle
from hwptq.tir.kernel import TensorType
from hwptq.tir.layout import Layout
from hwptq.tir.vector_unit import VectorUnit

AVX2 = load_target("x86-64-avx2")
VNNI = load_target("x86-64-vnni")
#: AVX2 without kernels for float results.
PORTABLE = replace(AVX2, ops=tuple(replace(rule, float_output=False) for rule in AVX2.ops))
pytestmark = pytest.mark.skipif(why_not_run(AVX2) is not None, reason=f"{AVX2.name}: {why_not_run(AVX2)}")
needs_vnni = pytest.mark.skipif(why_not_run(VNNI) is not None, reason=f"{VNNI.name}: {why_not_run(VNNI)}")
on_both = pytest.mark.parametrize(
    "target", [pytest.param(AVX2, id=AVX2.name), pytest.param(VNNI, id=VNNI.name, marks=needs_vnni)]
)

randoms = st.randoms(use_true_random=False)
channels = st.sampled_from(CHANNELS)


def with_vector_kernel(lanes: int) -> Descriptor:
    """AVX2 whose convolutions and dense layers use the portable vector template."""
    kernel = VectorKernel(lanes, tile_pixels=3, tile_vectors=2)
    return replace(AVX2, kernels={**AVX2.kernels, AVX2.rule("conv2d").kernel: kernel})


@settings(max_examples=20, deadline=None)
@given(randoms, channels, channels)
def test_conv2d_by_int16_pairs(random, channels_in, channels_out):
    check(conv_case(random, channels_in, channels_out), AVX2)


@settings(max_examples=10, deadline=None)
@given(randoms)
def test_dense_by_int16_pairs(random):
    check(dense_case(random), AVX2)


@settings(max_examples=20, deadline=None)
@given(randoms, st.sampled_from((AVX2, PORTABLE)))
def test_dense_with_float_results(random, target):
    check(dense_float_case(random), target)


@settings(max_examples=15, deadline=None)
@given(randoms)
def test_scales_of_rows(random):
    check(elementwise_cases.rows(random), AVX2)


@needs_vnni
@settings(max_examples=40, deadline=None)
@given(randoms)
def test_avx512(random):
    check(random_case(random), VNNI)


@needs_vnni
@settings(max_examples=30, deadline=None)
@given(randoms)
def test_depthwise_by_dot_products(random):
    """Also where no weights fit half of the first cache, so that vectors share them wherever they can."""
    memory = replace(VNNI.memory, first_cache=random.choice((0, VNNI.memory.first_cache)))
    check(depthwise_case(random), replace(VNNI, memory=memory))


@needs_vnni
@pytest.mark.parametrize(("channels", "width"), [(72, 5), (88, 7), (104, 12), (120, 5), (200, 7), (72, 12)])
def test_depthwise_whose_vectors_share_constants(channels: int, width: int):
    random = Random(channels + width)
    pad = random.choice((1, 2))
    op = Conv2d((1, 1), (pad, 2, 2, pad), (1, 1), channels, random.choice((-128, 3)), 3, -128, 127)
    x, weight = int8(random, 1, random.choice((3, 6)), width, channels), int8(random, channels, 5, 5, 1)
    case = Case(op, (x,), (weight, *scales(random, channels, 25)))
    step = case.steps(VNNI)[-1]
    assert step.name == "conv2d_depthwise_dot_product"
    taps = step.args[1]
    assert isinstance(taps, np.ndarray)
    assert taps.nbytes < 12 * weight.size
    check(case, VNNI)
    large = replace(VNNI, memory=replace(VNNI.memory, first_cache=2**30))
    apart = case.steps(large)[-1].args[1]
    assert isinstance(apart, np.ndarray)
    assert apart.nbytes > taps.nbytes
    check(case, large)


@needs_vnni
@settings(max_examples=20, deadline=None)
@given(randoms, st.integers(1, 3), st.integers(1, 5), st.integers(1, 3))
def test_depthwise_with_rows_in_a_buffer(random, resident_vectors, tile_pixels, threads):
    kernel = DepthwiseDotKernel(
        "llvm.x86.avx512.vpdpbusd.128", 4, True, tile_pixels, resident_vectors=resident_vectors
    )
    target = replace(VNNI, kernels={**VNNI.kernels, "depthwise": kernel})
    with mock.patch.object(vector_unit, "_LEAST_SHARED", 0):
        check(depthwise_case(random), target, threads)


@on_both
@settings(max_examples=12, deadline=None)
@given(randoms, st.integers(2, 4))
def test_in_parts_for_several_threads(target, random, threads):
    with mock.patch.object(vector_unit, "_LEAST_SHARED", 0):
        check(random.choice((random_case, depthwise_case))(random), target, threads)


@settings(max_examples=12, deadline=None)
@given(randoms)
def test_matmul_of_two_activations(random):
    check(matmul_case(random), AVX2)


@needs_vnni
@settings(max_examples=12, deadline=None)
@given(randoms)
def test_matmul_of_two_activations_as_unsigned(random):
    check(matmul_case(random), VNNI)


@on_both
@settings(max_examples=15, deadline=None)
@given(randoms, st.integers(1, 3))
def test_layers_in_other_layouts(target, random, threads):
    """The input may have a wider border than the kernel needs; the result a border, uint8 or int16."""
    case = random.choice((random_case, depthwise_case))(random)
    with mock.patch.object(vector_unit, "_LEAST_SHARED", 0):
        check(with_layouts(case, random, target), target, threads)


@on_both
@settings(max_examples=12, deadline=None)
@given(randoms, st.integers(1, 3))
def test_layers_with_followers(target, random, threads):
    """Adds of another tensor and clamps by channel, in the kernel of the layer before them."""
    case = with_followers(layer_case(random), random)
    with mock.patch.object(vector_unit, "_LEAST_SHARED", 0):
        check(with_layouts(case, random, target), target, threads)


@on_both
@settings(max_examples=12, deadline=None)
@given(randoms, st.sampled_from((1, 1, 3, 5)), st.integers(1, 3))
def test_pixels_of_a_1x1_convolution_that_see_only_padding(target, random, groups, threads):
    """They are constants, and the kernel leaves them out."""
    case = with_layouts(framed_case(random, groups), random, target)
    with mock.patch.object(vector_unit, "_LEAST_SHARED", 0):
        assert case.steps(target, threads)[-1].name == "constant_frame"
        check(case, target, threads)


@settings(max_examples=5, deadline=None)
@given(randoms)
def test_an_add_without_a_short_form(random):
    case = with_followers(layer_case(random), random)
    with mock.patch.object(add, "short_add", return_value=None):
        check(with_layouts(case, random, AVX2), AVX2)


@on_both
@settings(max_examples=12, deadline=None)
@given(randoms, st.integers(1, 3))
def test_images_are_quantized_and_moved_at_once(target, random, threads):
    with mock.patch.object(vector_unit, "_LEAST_SHARED", 0):
        check(image_case(random, target), target, threads)


@settings(max_examples=10, deadline=None)
@given(randoms, channels, st.integers(1, 3))
def test_pooling_writes_any_layout(random, number, threads):
    op = MaxPool((2, 2), (1, 2), (0, 0, 1, 1), (1, 1), (4, 3))
    case = Case(op, (int8(random, 2, 4, 5, number),), ())
    with mock.patch.object(vector_unit, "_LEAST_SHARED", 0):
        check(with_layouts(case, random, AVX2), AVX2, threads)


@settings(max_examples=20, deadline=None)
@given(randoms, st.sampled_from((elementwise_cases.pool, elementwise_cases.binary)), st.integers(2, 4))
def test_pooling_and_additions_in_parts(random, kind, threads):
    with mock.patch.object(vector_unit, "_LEAST_SHARED", 0):
        check(kind(random), AVX2, threads)


@settings(max_examples=10, deadline=None)
@given(randoms, st.sampled_from((1, 15, 33, 130)), st.integers(1, 5))
def test_threads_share_the_rows_of_a_global_average(random, number, threads):
    factor, shift = np.array([2**30 + 5], np.int32), np.array([12], np.int32)
    op = AvgPool((4, 3), (1, 1), (0, 0, 0, 0), (1, 1), 2**10, -3, -128, -128, 127)
    case = Case(op, (int8(random, 1, 4, 3, number),), (factor, shift))
    with mock.patch.object(vector_unit, "_LEAST_SHARED", 0):
        assert len(case.steps(AVX2, threads)) == (1 if threads == 1 else 2)
        check(with_layouts(case, random, AVX2), AVX2, threads)


@on_both
@settings(max_examples=10, deadline=None)
@given(randoms, st.integers(1, 3))
def test_resizing_writes_any_layout(target, random, threads):
    with mock.patch.object(vector_unit, "_LEAST_SHARED", 0):
        check(with_layouts(resize(random), random, target), target, threads)


@settings(max_examples=10, deadline=None)
@given(randoms, st.integers(1, 9), st.integers(2, 4))
def test_additions_in_parts(random, vectors, threads):
    op = Add(3, -7, 2**20, 700_001, 2**30 + 12345, 21, 5, -100, 120)
    shape = (1, vectors, 4, 16)
    with mock.patch.object(vector_unit, "_LEAST_SHARED", 0):
        check(Case(op, (int8(random, *shape), int8(random, *shape)), ()), AVX2, threads)


@settings(max_examples=15, deadline=None)
@given(randoms, channels)
def test_depthwise(random, groups):
    check(conv_case(random, groups, groups, groups), AVX2)


@settings(max_examples=15, deadline=None)
@given(randoms, st.sampled_from((1, 3, 4, 8, 16)))
def test_vector_template_of_any_width(random, lanes):
    check(random_case(random), with_vector_kernel(lanes))


@settings(max_examples=10, deadline=None)
@given(
    randoms, st.lists(st.integers(1, 70), min_size=1, max_size=4), st.integers(0, 2),
    st.sampled_from(("int8", "uint8")), st.integers(1, 3),
)  # fmt: skip
def test_concatenate(random, sizes, axis, dtype, threads):
    shapes = [(*(2, 3, 5)[:axis], size, *(2, 3, 5)[axis + 1 :]) for size in sizes]
    arrays = [int8(random, *shape) for shape in shapes]
    expected, layout = np.concatenate(arrays, axis), Layout(dtype=dtype)
    out = replace(type_of(expected), layout=layout)
    with mock.patch.object(vector_unit, "_LEAST_SHARED", 0):
        step = selector_of(AVX2, threads).concatenation([type_of(a) for a in arrays], axis, out)
    np.testing.assert_array_equal(run(arrays, [step], AVX2), in_layout(expected, layout))


#: groups, channels in and out: bundles of one, of several, of all groups, and depthwise with a multiplier
GROUPED = ((2, 4, 6), (3, 6, 3), (4, 4, 12), (8, 32, 32), (2, 34, 34), (4, 20, 68), (12, 12, 24))


@on_both
@settings(max_examples=10, deadline=None)
@given(randoms, st.sampled_from(GROUPED))
def test_other_groups(target, random, shape):
    groups, channels_in, channels_out = shape
    case = conv_case(random, channels_in, channels_out, groups)
    assert not any("portable" in step.name for step in case.steps(target))
    check(case, target)


@pytest.mark.parametrize("shape", [(1, 9, 1, 5), (2, 1, 9, 16), (2, 4, 4, 3)])
def test_one_column_one_row_and_several_images(shape):
    kernel = (3 if shape[1] > 1 else 1, 3 if shape[2] > 1 else 1)
    op = Conv2d((2, 1), (0, 0, 0, 0), (1, 1), 1, 3, -4, -128, 127)
    weight = int8(Random(1), 9, *kernel, shape[-1])
    check(Case(op, (int8(Random(2), *shape),), (weight, *scales(Random(3), 9, weight[0].size))), AVX2)


@pytest.mark.parametrize("fill", [(-128, -128), (-128, 127), (127, -128), (127, 127)])
def test_extreme_values_in_a_long_sum(fill):
    case = dense_case(Random(0))
    x, weight = np.full((3, 1000), fill[0], np.int8), np.full((17, 1000), fill[1], np.int8)
    scales = (np.full(17, 2**29), np.full(17, 2**31 - 1), np.full(17, 23))
    check(Case(case.op, (x,), (weight, *(v.astype(np.int32) for v in scales))), AVX2)


def meaning(kernel: DotProductKernel) -> Mac:
    """The instruction of `kernel`, spelled out: what any CPU can run."""

    def accumulate(acc, activation, weight):
        signed = "uint8" if kernel.unsigned_activation else f"int{kernel.operand_bits}"
        activation = activation.astype(f"{signed}x{kernel.lanes * kernel.k}")
        for i in range(kernel.k):
            lanes = range(i, kernel.lanes * kernel.k, kernel.k)
            a, w = (cast(shuffle([v], lanes), "int32", kernel.lanes) for v in (activation, weight))
            acc = acc + a * w
        return acc

    return replace(mac_of(kernel), accumulate=accumulate)


def check_meaning(case: Case, kernel: DotProductKernel) -> None:
    """Run the template of a `kernel` that this CPU may lack."""
    tile = Tile(kernel.tile_pixels, kernel.tile_vectors)
    check_template(case, Tiling("dot_product", meaning(kernel), tile, kernel.dense_vectors))


def check_template(case: Case, template: Tiling) -> None:
    """Run a template on this CPU, with 64-bit requantization."""
    expected = case.expected()
    out = TensorType(expected.shape, "int8")
    x, unit = type_of(case.activations[0]), VectorUnit(16)
    steps = tiled_steps(case.op, x, case.constants, out, template, unit, Schedule())
    np.testing.assert_array_equal(run(case.activations, steps, AVX2), expected, err_msg=str(case))


def matrix_meaning(kernel: MatrixMultiplyKernel) -> Mac:
    """The same for a matrix-multiply instruction."""

    def accumulate(acc, activation, weight):
        cells = [(row, column) for row in range(kernel.rows) for column in range(kernel.columns)]
        for i in range(kernel.k):
            a = shuffle([activation] * 2, [row * kernel.k + i for row, _ in cells])
            w = shuffle([weight] * 2, [column * kernel.k + i for _, column in cells])
            acc = acc + cast(a, "int32", len(cells)) * cast(w, "int32", len(cells))
        return acc

    return replace(matrix_multiply.mac_of(kernel), accumulate=accumulate)


@settings(max_examples=12, deadline=None)
@given(randoms, channels, channels, st.sampled_from(((2, 2, 8), (4, 2, 4), (1, 4, 8), (2, 4, 2))))
def test_matrix_multiply_of_any_shape(random, channels_in, channels_out, shape):
    """rows x columns x k: that of smmla and others."""
    case = conv_case(random, channels_in, channels_out, largest=6)
    kernel = MatrixMultiplyKernel("llvm.none", *shape, tile_pixels=5, tile_vectors=3)
    check_template(case, Tiling("matrix_multiply", matrix_meaning(kernel), Tile(5, 3), 4))


@settings(max_examples=12, deadline=None)
@given(randoms, channels, channels, st.sampled_from(("x86-64-vnni", "arm-cortex-a")))
def test_template_of_other_instructions(random, channels_in, channels_out, name):
    kernels = load_target(name).kernels.values()
    kernel = next(k for k in kernels if isinstance(k, DotProductKernel))
    check_meaning(conv_case(random, channels_in, channels_out, largest=4), kernel)
