"""Models whose weights alone another tool has quantized: its integers stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tvm
from onnx_models import model, node, normal, save

from hwptq import passes
from hwptq.calibration import calibrate
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.ir.composite import read_composite
from hwptq.ir.dataflow import bindings, constant, op_name
from hwptq.operators.group_dense import GroupDense
from hwptq.passes.graph.group_plan import GroupFormats
from hwptq.passes.graph.own_integers import own_integers
from hwptq.pipeline.stages import fuse
from hwptq.quant.group_codes import group_values
from hwptq.report.coverage import integer_nodes
from hwptq.targets import load_target

TARGET = load_target("arm-cortex-a")
CODES = {
    "w": np.random.default_rng(0).integers(-127, 128, (8, 3, 3, 3)).astype(np.int8),
    "v": np.random.default_rng(1).integers(-7, 8, (8, 5)).astype(np.int8),
}
CODES["w"][:, 0, 0, 0], CODES["v"][0] = 127, 7
SCALES = {"ws": np.linspace(0.002, 0.004, 8).astype(np.float32), "vs": np.float32(0.05)}
BATCHES = [{"x": normal(seed, 1, 3, 8, 8)} for seed in range(3)]


def _network() -> onnx.ModelProto:
    """Conv, BatchNorm (folded into the scales), Relu, mean, MatMul."""
    nodes = [
        node("DequantizeLinear", "w ws", "wf", axis=0),
        node("Conv", "x wf", "c", "conv"),
        node("BatchNormalization", "c g b m s", "n", "norm"),
        node("Relu", "n", "r", "relu"),
        node("GlobalAveragePool", "r", "p", "pool"),
        node("Flatten", "p", "f", "flatten"),
        node("DequantizeLinear", "v vs", "vf"),
        node("MatMul", "f vf", "y", "dense"),
    ]
    norm = {
        "g": np.abs(normal(2, 8)) + 1,
        "b": normal(3, 8),
        "m": normal(4, 8),
        "s": np.abs(normal(5, 8)) + 1,
    }
    return model(nodes, {"x": [1, 3, 8, 8]}, CODES | SCALES | norm, opset=21)


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> tvm.IRModule:
    return fuse(import_onnx(save(_network(), tmp_path_factory.mktemp("alone"))).module)


def _codes(qdq: tvm.IRModule) -> list[np.ndarray]:
    values = [v for _, v in bindings(qdq["main"]) if op_name(v) == "dequantize"]
    return [c for v in values if (c := constant(v.args[0])) is not None]


def _are_theirs(found: list[np.ndarray]) -> None:
    conv, dense = found
    np.testing.assert_array_equal(conv, CODES["w"])
    np.testing.assert_array_equal(dense, CODES["v"])


def test_static_activations(fused: tvm.IRModule) -> None:
    qdq = passes.InsertQDQ(TARGET, calibrate(fused, BATCHES))(fused)
    _are_theirs(_codes(qdq))
    _are_theirs(_codes(passes.RoundWeights(fused, BATCHES, TARGET)(qdq)))


def test_dynamic_activations(fused: tvm.IRModule) -> None:
    [dense] = _codes(passes.InsertDynamicQDQ(load_target("x86-64-vnni"))(fused))
    np.testing.assert_array_equal(dense, CODES["v"])


def test_nothing_scales_them(fused: tvm.IRModule) -> None:
    for step in (passes.EqualizeCrossLayer(), passes.SmoothActivations(BATCHES)):
        again = tvm.ir.transform.Sequential([step])(fused)
        found = [own_integers(v) for _, v in bindings(again["main"]) if read_composite(again, v) is not None]
        _are_theirs([own.codes for own in found if own is not None])


def test_other_dtypes_and_granularities_round_them(fused: tvm.IRModule) -> None:
    """What the user asks for goes before: 4 bits of what needs 8, one scale where there are several."""
    stats = calibrate(fused, BATCHES)
    narrow = passes.InsertQDQ(TARGET, stats, assignment=dict.fromkeys(("conv", "dense"), ("int8", "int4")))
    conv, dense = _codes(narrow(fused))
    assert np.abs(conv).max() <= 7
    np.testing.assert_array_equal(dense, CODES["v"])
    conv, dense = _codes(passes.InsertQDQ(TARGET, stats, "tensor")(fused))
    assert not np.array_equal(conv, CODES["w"])
    np.testing.assert_array_equal(dense, CODES["v"])


@pytest.mark.parametrize("symmetric", [True, False])
def test_blocks_are_groups(symmetric: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A weight in blocks, as MatMulNBits has it: with groups of that size no value of it changes."""
    rng = np.random.default_rng(8)
    codes, scales = rng.integers(-8, 8, (64, 6)), rng.uniform(0.01, 0.1, (2, 6)).astype(np.float32)
    zeros = np.zeros((2, 6), np.int8) if symmetric else rng.integers(-8, 8, (2, 6)).astype(np.int8)
    nodes = [
        node("DequantizeLinear", "w s z", "wf", axis=0, block_size=32),
        node("MatMul", "x wf", "y", "dense"),
    ]
    proto = model(nodes, {"x": [4, 64]}, {"w": codes.astype(np.int8), "s": scales, "z": zeros}, opset=21)
    fused = fuse(import_onnx(save(proto, tmp_path_factory.mktemp("blocks"))).module)
    target, formats = load_target("x86-64-avx2"), GroupFormats("int4", 32, "int4", 32)
    samples = [{"x": normal(seed, 4, 64)} for seed in range(2)]
    qdq = tvm.ir.transform.Sequential([passes.InsertDynamicQDQ(target, None, formats)])(fused)
    for module in (qdq, passes.RoundGroups(fused, samples, target)(qdq)):
        integer = tvm.ir.transform.Sequential([passes.LowerToInteger(target)])(module)
        [(op, args)] = [(op, args) for _, op, args in integer_nodes(integer) if isinstance(op, GroupDense)]
        rows = [constant(a) for a in args[1:]]
        held = group_values(rows[0], rows[1], None if symmetric else rows[2], op.weight, op.size, op.depth)
        real = (codes - np.repeat(zeros.astype(int), 32, 0)).astype(np.float32) * np.repeat(scales, 32, 0)
        np.testing.assert_allclose(held, real.T, rtol=2e-7, atol=0)
