"""Weights of other tools that are no int8 codes: exactly as such where they can be, else rounded and said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import model, node, normal, save

from hwptq import passes
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.passes.graph.quantizable import rounded_weights
from hwptq.pipeline.stages import normalize
from hwptq.pipeline.step import Job
from hwptq.quant.split_codes import split_codes
from hwptq.report.coverage import float_nodes
from hwptq.targets import load_target

ARM = load_target("arm-cortex-a")
IMAGE = [1, 5, 6, 6]


def _conv(codes: np.ndarray, zero: Any, out_scale: float, group: int = 1) -> onnx.ModelProto:
    """A convolution of codes in steps of 0.05, between Q and DQ."""
    nodes = [
        node("QuantizeLinear", "x xs xz", "xq"),
        node("DequantizeLinear", "xq xs xz", "xf"),
        node("DequantizeLinear", "w ws wz", "wf", axis=0),
        node("Conv", "xf wf b", "c", "conv", group=group, pads=[1, 1, 1, 1]),
        node("QuantizeLinear", "c ys yz", "yq"),
        node("DequantizeLinear", "yq ys yz", "y"),
    ]
    constants = {
        "w": codes, "ws": np.float32(0.01), "wz": zero, "b": normal(1, len(codes)),
        "xs": np.float32(0.05), "xz": np.uint8(120), "ys": np.float32(out_scale), "yz": np.uint8(128),
    }  # fmt: skip
    return model(nodes, {"x": IMAGE}, constants, opset=21)


def _both(proto: onnx.ModelProto, folder: Path) -> tuple[tvm.IRModule, tvm.IRModule]:
    """The module before and after."""
    found = normalize(import_onnx(save(proto, folder)).module, Job(ARM))
    return found.float32, found.qdq


def _same_values(before: tvm.IRModule, after: tvm.IRModule, step: float) -> None:
    """The float graphs give the same but for the rounding of sums, the integers do to a code."""
    inputs = {"x": normal(7, *IMAGE, spread=2.0)}
    first, second = (Interpreter(m).run(inputs)[0] for m in (before, after))
    assert np.mean(first != second) < 0.02
    integer = passes.LowerToInteger(ARM)(after)
    assert float_nodes(integer) == []
    computed = Interpreter(integer).run(inputs)[0]
    assert np.abs(computed - first).max() <= 1.01 * step
    assert np.mean(np.abs(computed - first) > step / 2) < 0.1


def _codes(seed: int, low: int, high: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high + 1, shape)


@pytest.mark.parametrize("far", [1, 3, 5])
def test_nine_bits_read_some_channels_twice(tmp_path: Path, far: int) -> None:
    """Exactly: codes - zero point from -117 to 138, beyond int8 in `far` of five channels."""
    codes = _codes(0, 20, 200, 4, 5, 3, 3)
    codes[:, :far, 0, 1] = 255
    before, after = _both(_conv(codes.astype(np.uint8), np.uint8(117), 0.6), tmp_path)
    assert rounded_weights(after["main"]) == {}
    _same_values(before, after, 0.6)


@pytest.mark.parametrize(("group", "multiplier"), [(5, 1), (5, 2), (1, 4)])
def test_nine_bits_in_groups(tmp_path: Path, group: int, multiplier: int) -> None:
    """Exactly too: of a layer by channel every group reads its channel twice."""
    codes = _codes(0, 20, 200, group * multiplier, 5 // group, 3, 3)
    codes[:, 0, 0, 1] = 255
    proto = _conv(codes.astype(np.uint8), np.uint8(117), 0.3, group)
    before, after = _both(proto, tmp_path)
    assert rounded_weights(after["main"]) == {}
    _same_values(before, after, 0.3)


def test_ten_bits_are_rounded_and_that_is_said(tmp_path: Path) -> None:
    codes = _codes(0, -300, 300, 5, 1, 3, 3).astype(np.int16)
    found = normalize(import_onnx(save(_conv(codes, np.int16(0), 0.3, 5), tmp_path)).module, Job(ARM))
    assert [w.kind for w in found.warnings] == ["weights"]
    assert "1 weights (conv)" in found.warnings[0].text
    assert rounded_weights(found.qdq["main"])["conv"] > 40
    assert float_nodes(passes.LowerToInteger(ARM)(found.qdq)) == []


@pytest.mark.parametrize("limit", [15, 31, 63, 100])
def test_large_multipliers_become_large_codes(tmp_path: Path, limit: int) -> None:
    """A step of the output is less than two of the sum: 2^k times the codes, twice the inputs if need be."""
    codes = _codes(2, -limit, limit, 4, 5, 3, 3).astype(np.int8)
    before, after = _both(_conv(codes, np.int8(0), 0.05 * 0.01 / 0.7), tmp_path)
    assert float_nodes(passes.LowerToInteger(ARM)(before))
    assert rounded_weights(after["main"]) == {}
    _same_values(before, after, 0.05 * 0.01 / 0.7)


def test_dead_channels_count_their_bias_in_larger_steps(tmp_path: Path) -> None:
    """A channel of weights of 1e-9 with a bias of 1: no other channel changes, and what is lost is said."""
    codes = _codes(3, -127, 127, 4, 5, 3, 3).astype(np.int8)
    proto = _conv(codes, np.zeros(4, np.int8), 0.3)
    scales = np.float32([0.01, 1e-12, 0.01, 0.02])
    for tensor in proto.graph.initializer:
        if tensor.name == "ws":
            tensor.CopyFrom(onnx.numpy_helper.from_array(scales, "ws"))
    before, after = _both(proto, tmp_path)
    assert float_nodes(passes.LowerToInteger(ARM)(before))
    assert rounded_weights(after["main"])["conv"] > 150
    _same_values(before, after, 0.3)


def test_what_fits_stays_as_it_is(tmp_path: Path) -> None:
    codes = _codes(3, -127, 127, 4, 5, 3, 3).astype(np.int8)
    before, after = _both(_conv(codes, np.int8(0), 0.3), tmp_path)
    assert after.script(show_meta=True) == before.script(show_meta=True)


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 10**6),
    reach=st.integers(1, 254),
    channels=st.integers(1, 6),
    axis=st.sampled_from([0, 1]),
)
def test_split_codes_are_a_sum(seed: int, reach: int, channels: int, axis: int) -> None:
    codes = _codes(seed, -reach, reach, 4, channels)
    codes = codes if axis == 1 else codes.T
    found = split_codes(codes, axis)
    assert found is not None
    assert found.first.dtype == found.second.dtype == np.int8
    total = found.first.astype(int)
    np.add.at(np.moveaxis(total, axis, 0), list(found.channels), np.moveaxis(found.second, axis, 0))
    np.testing.assert_array_equal(total, codes)
    assert len(set(found.channels)) == found.second.shape[axis]
    assert reach > 127 or found.channels == ()


def test_ten_bits_have_no_sum_of_two() -> None:
    assert split_codes(np.array([[256, 0]]), 1) is None
    assert split_codes(np.array([[-257, 0]]), 1) is None


def test_codes_of_an_operand_keep_their_zero_point(tmp_path: Path) -> None:
    """x + c, c in uint8 from end to end: no code of c is rounded."""
    nodes = [
        node("QuantizeLinear", "x xs xz", "xq"),
        node("DequantizeLinear", "xq xs xz", "xf"),
        node("DequantizeLinear", "c cs cz", "cf"),
        node("Add", "xf cf", "s", "add"),
        node("QuantizeLinear", "s xs xz", "yq"),
        node("DequantizeLinear", "yq xs xz", "y"),
    ]
    constants = {
        "c": np.arange(0, 256, 2, dtype=np.uint8)[None], "cs": np.float32(0.05), "cz": np.uint8(40),
        "xs": np.float32(0.05), "xz": np.uint8(0),
    }  # fmt: skip
    proto = model(nodes, {"x": [1, 128]}, constants, opset=21)
    before, after = _both(proto, tmp_path)
    integer, inputs = passes.LowerToInteger(ARM)(after), {"x": np.abs(normal(1, 1, 128))}
    assert float_nodes(integer) == []
    first, second = (Interpreter(m).run(inputs)[0] for m in (before, integer))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("shared", [True, False])
def test_a_batch_norm_behind_codes_goes_into_their_scales(tmp_path: Path, shared: bool) -> None:
    """As some tools leave it between a convolution and its Q; a negative gain turns the codes around."""
    nodes = [
        node("QuantizeLinear", "x xs xz", "xq"),
        node("DequantizeLinear", "xq xs xz", "xf"),
        node("DequantizeLinear", "w ws wz", "wf", axis=0),
        node("Conv", "xf wf b", "c", "conv", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c g h m v", "n", "norm"),
        node("Relu", "n", "r", "relu"),
        node("QuantizeLinear", "r ys yz", "yq"),
        node("DequantizeLinear", "yq ys yz", "y"),
    ]
    scale = np.float32(0.01) if shared else np.float32([0.01, 0.02, 0.005, 0.01])
    constants = {
        "w": _codes(5, -127, 127, 4, 5, 3, 3).astype(np.int8), "ws": scale,
        "wz": np.zeros_like(scale, np.int8), "b": normal(1, 4), "g": np.float32([1, -2, 0.5, 0]),
        "h": normal(2, 4), "m": normal(3, 4), "v": np.abs(normal(4, 4)) + 1, "xs": np.float32(0.05),
        "xz": np.uint8(120), "ys": np.float32(0.3), "yz": np.uint8(10),
    }  # fmt: skip
    proto = model(nodes, {"x": IMAGE}, constants, opset=21)
    imported = import_onnx(save(proto, tmp_path)).module
    after = normalize(imported, Job(ARM)).qdq
    _same_values(imported, after, 0.3)
