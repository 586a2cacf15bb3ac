"""Samples that nothing can be learned from."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import normal

from hwptq.data.data_warnings import data_warnings
from hwptq.data.dataset import Dataset, from_batches

INPUTS = {"x": ((1, 3, 5, 4), "float32")}


def dataset(array: np.ndarray) -> Dataset:
    return from_batches([{"x": a[None]} for a in array], INPUTS)


def kinds(calibration: Dataset | None, evaluation: Dataset) -> list[tuple[str, str]]:
    return [(w.kind, w.where) for w in data_warnings(calibration, evaluation)]


GOOD = normal(0, 20, 3, 5, 4)


def test_good_data_is_no_reason_to_warn():
    data = dataset(GOOD)
    assert kinds(data, data) == []


@pytest.mark.parametrize("value", [0, 0.5])
def test_data_of_one_value(value: float):
    data = dataset(np.full_like(GOOD, value))
    [warning] = data_warnings(data, dataset(GOOD))
    assert (warning.kind, warning.where, warning.serious) == ("constant-data", "x", True)
    assert f"all of the calibration data is {value:g}" in warning.text


@pytest.mark.parametrize("inputs", [INPUTS, {"x": ((1, 5, 4, 3), "float32")}], ids=["NCHW", "NHWC"])
def test_a_channel_of_one_value(inputs: dict):
    array = GOOD.copy()
    array[:, 1] = 7
    if inputs != INPUTS:
        array = array.transpose(0, 2, 3, 1)
    data = from_batches([{"x": a[None]} for a in array], inputs)
    [warning] = data_warnings(data, data)
    assert warning.text.startswith("channel 1 never changes")
    assert not warning.serious


def test_constant_integers_are_as_a_mask_may_be():
    inputs = {"mask": ((1, 8), "int64")}
    data = from_batches([{"mask": np.ones((1, 8), np.int64)}] * 20, inputs)
    assert kinds(data, data) == []


def test_few_samples_and_data_that_can_be_read_once():
    few = dataset(GOOD[:3])
    assert kinds(few, dataset(GOOD)) == [("few-samples", "")]
    assert kinds(dataset(GOOD), few) == [("few-samples", "")]
    assert kinds(few, few) == [("few-samples", "")]
    once = from_batches(({"x": a[None]} for a in np.zeros_like(GOOD)), INPUTS)
    assert kinds(once, once) == []
