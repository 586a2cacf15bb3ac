"""Codes, weights and biases as devices limit them: [numerics] codes, weights and bias_bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import model, node, normal
from operator_graphs import extreme, fused
from relax_graphs import Emit, const, graph, network, nn, run, samples, sqnr, stats_of
from tvm import relax

import hwptq
from hwptq.evaluate.interpret import Interpreter
from hwptq.formats import INT8
from hwptq.ir.dataflow import constant
from hwptq.ir.provenance import Part
from hwptq.passes import CorrectBias, FoldBatchNorm, FuseConvRelu, InsertQDQ, LowerToInteger
from hwptq.passes.graph.quantizable import float_reasons
from hwptq.quant.qparams import (
    ANY_GRID,
    activation_qparams,
    asymmetric_weight,
    quantize_weight,
    weight_scales,
)
from hwptq.report.coverage import integer_nodes
from hwptq.targets import load_target
from hwptq.targets.numerics import Numerics

ARM = load_target("arm-cortex-a")
#: One of each way to make codes.
NARROWED = (
    "grouped conv", "dense", "matmul", "add and relu", "multiply", "max pool", "average pool with padding",
    "concat", "resize", "pad", "pixel shuffle", "gelu", "hard swish",
)  # fmt: skip
NARROW = replace(ARM, numerics=Numerics(codes="narrow"))
DEVICE = """\
schema = 1
name = "chip"
extends = "x86-64-avx2"
[numerics]
codes = "narrow"
weights = "asymmetric"
bias_bits = 20
"""


def device(**numbers: Any) -> Any:
    """A target with such numbers."""
    return replace(ARM, numerics=Numerics(**numbers))


def lowered(mod: tvm.IRModule, target: Any) -> tvm.IRModule:
    """A float module in integers, for a target."""
    return LowerToInteger(target)(InsertQDQ(target, stats_of(mod))(mod))


@pytest.mark.parametrize("name", NARROWED)
def test_narrow_codes_leave_out_the_least(name: str) -> None:
    """In every tensor of every operator, however far its inputs lie out of range."""
    mod = lowered(fused(name), NARROW)
    least: list[int] = []

    def see(_: str, origin: Any, value: Any) -> None:
        if (
            isinstance(value, np.ndarray)
            and value.dtype == np.int8
            and origin.part in (Part.CODES, Part.IMAGE)
        ):
            least.append(int(value.min()))

    for inputs in (extreme(mod), *samples(mod, 2)):
        Interpreter(mod).run(inputs, see)
    assert least
    assert min(least) == -127
    assert not float_reasons(mod["main"])


@given(low=st.floats(-10, 0), high=st.floats(0.125, 10))
def test_parameters_of_narrow_codes_cover_the_range(low: float, high: float) -> None:
    q = activation_qparams(low, high, grid=NARROW.numerics.grid)
    assert q.dtype.qmin <= q.zero_point <= q.dtype.qmax
    codes = q.dtype.encode(np.float32([low, 0, high]), q.scale, q.zero_point)
    assert codes.min() >= -127
    assert np.all(np.abs(q.dtype.decode(codes, q.scale, q.zero_point) - [low, 0, high]) <= q.scale)
    assert codes[1] == q.zero_point


def with_bias(reach: float) -> tvm.IRModule:
    """A convolution with small weights and a large bias."""

    def build(emit: Emit, x: Any) -> Any:
        y = emit(nn.conv2d(x, const(6, 5, 3, 3, spread=0.01)), "conv")
        bias = np.linspace(-reach, reach, 6, dtype=np.float32).reshape(1, 6, 1, 1)
        return emit(relax.op.add(y, relax.const(bias)), "bias")

    return tvm.ir.transform.Sequential([FoldBatchNorm(), FuseConvRelu()])(graph(build, x=(1, 5, 6, 6)))


def biases(integer: tvm.IRModule) -> list[np.ndarray]:
    """Of each layer in integers, in steps of its products, without the share of the zero point."""
    found = []
    for op, args in layers(integer):
        weight, bias = (constant(a) for a in args[1:3])
        assert weight is not None
        rows = weight.reshape(len(weight), -1).astype(np.int64).sum(axis=1)
        found.append(bias + op.in_zero_point * rows)
    return found


def layers(integer: tvm.IRModule) -> list[tuple[Any, Any]]:
    """Operators and arguments of layers with weights."""
    return [(op, args) for _, op, args in integer_nodes(integer) if op.kind in ("conv2d", "dense")]


@settings(max_examples=8, deadline=None)
@given(bits=st.integers(14, 24), reach=st.floats(0.5, 1000))
def test_biases_fit_the_bits_of_the_device(bits: int, reach: float) -> None:
    mod = with_bias(reach)
    target = device(bias_bits=bits)
    qdq = InsertQDQ(target, stats_of(mod))(mod)
    corrected = CorrectBias(mod, samples(mod, 2), target)(qdq)
    for integer in (LowerToInteger(target)(qdq), LowerToInteger(target)(corrected)):
        assert not float_reasons(integer["main"])
        (bias,) = biases(integer)
        assert np.abs(bias).max() < 2 ** (bits - 1)


def test_biases_of_many_bits_are_those_of_32() -> None:
    mod = with_bias(3.0)
    (many,), (usual,) = (biases(lowered(mod, device(bias_bits=bits))) for bits in (40, 32))
    np.testing.assert_array_equal(many, usual)


def test_a_bias_of_another_tool_that_is_too_large_keeps_its_layer_in_float() -> None:
    """Its scales are not ours to change."""
    mod = with_bias(100.0)
    qdq = InsertQDQ(ARM, stats_of(mod))(mod)
    few = LowerToInteger(device(bias_bits=16))(qdq)
    (reason,) = float_reasons(few["main"]).values()
    assert "bias takes" in reason
    assert "the device has 16" in reason
    assert not layers(few)


@given(low=st.floats(-2, 0.9), seed=st.integers(0, 99))
def test_a_zero_point_takes_half_a_step_of_the_range(low: float, seed: int) -> None:
    """Weights on one side have twice as fine steps; 0 stays 0."""
    weight = np.random.default_rng(seed).uniform(low, 1, (3, 40)).astype(np.float32)
    weight[:, :2] = 0, 1
    codes, scale = asymmetric_weight(weight, 0, None, INT8, ANY_GRID)
    steps = scale[:, np.newaxis]
    assert not codes[weight == 0].any()
    assert np.all(codes.max(axis=1) - codes.min(axis=1) <= 254)
    assert np.abs(codes * steps - weight).max() <= 1.01 * scale.max()
    symmetric = weight_scales(weight, 0)
    if low >= 0:
        assert np.all(scale < 0.51 * symmetric)
        other = quantize_weight(weight, symmetric, 0) * symmetric[:, np.newaxis]
        assert np.square(codes * steps - weight).sum() < np.square(other - weight).sum()


def one_sided() -> tvm.IRModule:
    """A convolution whose weights are positive."""

    def build(emit: Emit, x: Any) -> Any:
        weight = np.abs(np.random.default_rng(3).normal(1, 0.2, (6, 5, 3, 3))).astype(np.float32)
        return emit(nn.relu(emit(nn.conv2d(x, relax.const(weight)), "conv")), "relu")

    return tvm.ir.transform.Sequential([FoldBatchNorm(), FuseConvRelu()])(graph(build, x=(1, 5, 6, 6)))


def test_asymmetric_weights_are_computed_in_integers() -> None:
    """Exactly: the integers are those of the QDQ graph, in which a weight is (code - zero point) * scale."""
    mod, target = one_sided(), device(weights="asymmetric")
    qdq = InsertQDQ(target, stats_of(mod))(mod)
    integer = LowerToInteger(target)(qdq)
    assert not float_reasons(integer["main"])
    ((op, args),) = layers(integer)
    weight = constant(args[1])
    assert weight is not None
    assert weight.dtype == np.int8
    assert weight.shape[-1] > 5  # channels are read twice
    assert op.kind == "conv2d"
    for exact, found in zip(run(qdq, samples(mod)), run(integer, samples(mod)), strict=True):
        np.testing.assert_allclose(found[0], exact[0], atol=step_of(integer))


def step_of(integer: tvm.IRModule) -> float:
    """The scale of the last result."""
    (last,) = [op.scale for _, op, _ in integer_nodes(integer) if op.kind == "dequantize"]
    return float(last) * 1.001


def test_a_network_with_asymmetric_weights() -> None:
    fine = tvm.ir.transform.Sequential([FoldBatchNorm(), FuseConvRelu()])(network())
    integer = lowered(fine, device(weights="asymmetric"))
    assert not float_reasons(integer["main"])
    assert sqnr(fine, integer) > 20


def test_all_rules_in_emitted_code(runnable: Callable[[str], str], tmp_path: Path) -> None:
    runnable("x86-64-avx2")
    (tmp_path / "chip.toml").write_text(DEVICE)
    proto = model(
        [
            node("Conv", "x w", "wide", "wide", pads=[1, 1, 1, 1]),
            node("Relu", "wide", "positive"),
            node("Conv", "positive d", "deep", "deep", group=8),
            node("Add", "deep b", "y"),
        ],
        {"x": [1, 3, 9, 7]},
        {"w": np.abs(normal(0, 8, 3, 3, 3)), "d": normal(1, 8, 1, 3, 3), "b": 50 * normal(2, 1, 8, 1, 1)},
    )
    data = [{"x": normal(seed, 1, 3, 9, 7)} for seed in range(4)]
    report = hwptq.compile(proto, tmp_path / "chip.toml", data, output=tmp_path / "out").report
    assert (report["bit_exact"]["samples"], report["bit_exact"]["mismatches"]) == (4, 0)
    assert report["coverage"]["nodes_float"] == []
    assert {row["weight"] for row in report["bits"]} == {"int8"}
