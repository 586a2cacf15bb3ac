"""Symbolic axes of inputs get the sizes that the user gives, and errors say how to give them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import pytest
from onnx import TensorProto, helper

from hwptq.errors import InputError, UnsupportedError
from hwptq.frontends.onnx.input_shapes import input_shapes


def value(name: str, *shape: int | str | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


@pytest.mark.parametrize("batch", ["N", None, 0, -1, 1], ids=str)
def test_the_batch_is_one_unless_it_is_given(batch: int | str | None):
    assert input_shapes([value("x", batch, 3, 5)], {}) == {"x": (1, 3, 5)}
    if batch != 1:
        assert input_shapes([value("x", batch, 3, 5)], {"x.0": 2}) == {"x": (2, 3, 5)}


def test_axes_are_given_by_their_name_in_all_inputs():
    inputs = [value("ids", "N", "S"), value("mask", "N", "S")]
    assert input_shapes(inputs, {"S": 7}) == {"ids": (1, 7), "mask": (1, 7)}
    assert input_shapes(inputs, {"S": 7, "mask.1": 9, "N": 2}) == {"ids": (2, 7), "mask": (2, 9)}


@pytest.mark.parametrize("names", [("?", "?"), (None, None), (-1, -1), ("S", "S")], ids=str)
def test_axes_without_a_name_of_their_own_are_given_by_place(names: Sequence[int | str | None]):
    inputs = [value("x", 1, 3, *names)]
    with pytest.raises(UnsupportedError) as error:
        input_shapes(inputs, {})
    assert str(error.value) == (
        "input 'x': axes 2 and 3 are symbolic; give the size: --axis x.2=SIZE --axis x.3=SIZE"
    )
    assert input_shapes(inputs, {"x.2": 48, "x.3": 192}) == {"x": (1, 3, 48, 192)}


def test_a_missing_size_is_asked_for_by_name():
    with pytest.raises(UnsupportedError, match="input 'x': axis 2 is symbolic; give the size: --axis H=SIZE"):
        input_shapes([value("x", "N", 3, "H")], {})


def test_an_axis_that_is_a_sum_of_others_follows_from_them():
    """As exports of language models have it; "new" is asked for once."""
    inputs = [
        value("ids", "batch", "new"),
        value("mask", "batch", "past + new"),
        value("k", "2*batch", 4, "past"),
    ]
    found = {"ids": (1, 1), "mask": (1, 8), "k": (2, 4, 7)}
    assert input_shapes(inputs, {"new": 1, "past": 7}) == found
    assert input_shapes(inputs, {"new": 1, "past": 7, "mask.1": 9}) == {**found, "mask": (1, 9)}
    assert input_shapes(inputs, {"new": 1, "past": 7, "past + new": 9}) == {**found, "mask": (1, 9)}
    with pytest.raises(UnsupportedError) as error:
        input_shapes(inputs, {})
    assert str(error.value) == (
        "input 'ids': axis 1 is symbolic, as are axes of 2 more inputs; give the size: --axis new=SIZE "
        "--axis past=SIZE"
    )


@pytest.mark.parametrize(
    "symbol", ["a.b", "past +", "new - 1", "1 / new", "new // 0", "f(new)", "other + new"]
)
def test_what_is_no_sum_of_known_axes_is_asked_for_by_place(symbol: str):
    with pytest.raises(UnsupportedError, match="input 'mask': axis 1 is symbolic"):
        input_shapes([value("ids", "batch", "new"), value("mask", "batch", symbol)], {"new": 1})


def test_a_size_that_names_no_axis_is_refused():
    with pytest.raises(InputError, match=r"--axis T: no symbolic axis has this name; there is N, S, x\.2"):
        input_shapes([value("x", "N", "S", "?"), value("y", "N", "S")], {"T": 7})
    with pytest.raises(InputError, match="there is none"):
        input_shapes([value("x", 1, 3)], {"x.1": 3})
