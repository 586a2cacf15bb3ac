"""Packed weights and inputs, and the register tile: what the kernels are given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwptq.kernels import matrix_multiply
from hwptq.kernels.choose_tile import fit
from hwptq.kernels.convolution import Convolution, flattened
from hwptq.kernels.dot_product import mac_of
from hwptq.kernels.pack_input import Packing, pack_input
from hwptq.kernels.pack_weights import channels_of, pack_channels, pack_scales, pack_weights, without_offset
from hwptq.kernels.register_tile import Tile
from hwptq.kernels.result_range import proven
from hwptq.kernels.vector_blocks import blocks, even
from hwptq.targets import load_target
from hwptq.tir.builder import powers
from hwptq.tir.kernel import TensorType
from hwptq.tir.layout import PLAIN, Layout, Padding
from hwptq.tir.requantize import Bounds
from hwptq.tir.vector_unit import VectorUnit

CONV = Convolution(2, (5, 6), 16, (3, 4), 32, (3, 3), (1, 1), (1, 1))


SDOT = mac_of(load_target("arm-cortex-a").kernels["sdot"])


def test_channels_that_divide():
    assert channels_of(8, 4).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_the_last_vector_overlaps():
    assert channels_of(6, 4).tolist() == [[0, 1, 2, 3], [2, 3, 4, 5]]


def test_fewer_channels_than_lanes():
    assert channels_of(3, 4).tolist() == [[0, 1, 2, -1]]
    assert pack_channels(np.array([5, 6, 7], np.int32), 4).tolist() == [5, 6, 7, 0]
    multiplier, shift = pack_scales([np.full(3, 2**31 - 1, np.int32), np.full(3, 4, np.int32)], 4)
    assert (multiplier[3], shift[3]) == (2**30, 31)


def test_a_row_of_packed_weights_is_one_operand():
    """2 channels of one run of 3 elements, k = 2: the run is padded to 4."""
    weight = np.array([[[[1, 2, 3]]], [[[4, 5, 6]]]], np.int8)
    packed = pack_weights(weight, run=3, lanes=2, k=2)
    assert packed.tolist() == [[1, 2, 4, 5], [3, 0, 6, 0]]


def test_two_int4_groups_share_a_row():
    """A run of 3 groups takes 2 rows; shifts and masks give the operands of 8 bits back."""
    weight = (np.arange(-8, 7, dtype=np.int8) * 16)[:12].reshape(2, 1, 1, 6)
    plain, packed = (pack_weights(weight, run=6, lanes=2, k=2, bits=bits) for bits in (8, 4))
    assert packed.shape == (2, 4)
    np.testing.assert_array_equal(packed << 4, plain[::2])
    np.testing.assert_array_equal((packed & -16)[0], plain[1])
    assert not (packed & -16)[1].any()


def test_the_vectors_of_a_block_take_turns():
    """5 channels, one a vector, in blocks of 2: two rows each."""
    weight = np.arange(10, dtype=np.int8).reshape(5, 1, 1, 2)
    packed = pack_weights(weight, run=2, lanes=1, k=1, block=2)
    assert packed.reshape(-1).tolist() == [0, 2, 1, 3, 4, 6, 5, 7, 8, 9]
    assert blocks(5, 2) == [(0, 2, 2), (4, 1, 1)]


def test_weights_that_are_no_int4_values_are_refused():
    with pytest.raises(ValueError, match="multiples of 16"):
        pack_weights(np.full((4, 1, 1, 4), 8, np.int8), 4, 4, 4, bits=4)


def test_the_bias_cancels_the_offset_of_unsigned_activations():
    weight = np.array([[-128, 127, 3]], np.int8)
    x = np.array([-128, 127, 5])
    bias = without_offset(np.array([1000], np.int32), weight)
    assert int(bias[0]) + int((x + 128) @ weight[0]) == 1000 + int(x @ weight[0])


@pytest.mark.parametrize(("extent", "most", "size"), [(8, 4, 4), (7, 4, 4), (6, 4, 3), (5, 4, 3), (3, 4, 3)])
def test_parts_are_even(extent, most, size):
    assert even(extent, most) == size


def test_powers_add_up():
    assert powers(7, 4) == [4, 2, 1]
    assert powers(8, 4) == [4, 4]
    assert powers(3, 1) == [1, 1, 1]


def test_the_tile_fits_the_shape():
    assert fit(CONV, SDOT, Tile(4, 4), 8) == Tile(4, 4)
    assert fit(replace(CONV, co=4), SDOT, Tile(2, 2), 8) == Tile(4, 1)  # few channels: more pixels
    assert fit(replace(CONV, out=(3, 1)), SDOT, Tile(4, 4), 8) == Tile(1, 8)  # one pixel in a row


def test_rows_of_a_matrix_product_are_not_wasted():
    kernel = load_target("arm-cortex-a-i8mm").kernels["smmla"]
    assert fit(replace(CONV, out=(3, 6)), matrix_multiply.mac_of(kernel), Tile(8, 4), 8).pixels % 2 == 0


def test_results_that_are_proven_to_fit_int16():
    """256 times the weight 2 and a factor of 1/2: results from -2^15 to 127 * 256, less with a zero point."""
    bounds, weight = Bounds(0, -128, 127), np.full((1, 256), 2, np.int8)
    factors = np.array([[0], [2**31 - 1], [1]], np.int32)
    assert proven(bounds, [weight, *factors]).fits_int16
    assert not proven(replace(bounds, zero_point=-128), [weight, *factors]).fits_int16
    assert not proven(bounds, [-weight, *factors]).fits_int16
    assert proven(None, []) is None


def test_a_window_without_dilation_is_read_row_by_row():
    assert (CONV.runs, CONV.run) == ((3, 1), 48)
    dilated = replace(CONV, dilation=(1, 2))
    assert (dilated.runs, dilated.run) == ((3, 3), 16)


def test_pixels_become_one_row():
    pointwise = replace(CONV, kernel=(1, 1), out=(5, 6))
    assert flattened(pointwise).out == (1, 60)
    for apart in (replace(pointwise, border=Padding(1)), replace(pointwise, image=(5, 8))):
        assert flattened(apart) == apart
    column = replace(CONV, image=(9, 1), out=(7, 1), kernel=(3, 1))
    assert (flattened(column).image, flattened(column).out, flattened(column).kernel) == (
        (1, 9),
        (1, 7),
        (1, 3),
    )
    assert flattened(CONV) == CONV


def test_an_input_is_packed_only_where_something_changes():
    x = TensorType((1, 4, 4, 8), "int8")
    assert pack_input(Packing(x, PLAIN, VectorUnit(16))) is None
    elements = [
        pack_input(Packing(x, wanted, VectorUnit(16)))
        for wanted in (Layout(Padding(1)), Layout(slack=3), Layout(dtype="int16"))
    ]
    assert [s and s.out.stored for s in elements] == [
        TensorType((160,), "int8"),
        TensorType((131,), "int8"),
        TensorType((128,), "int16"),
    ]
