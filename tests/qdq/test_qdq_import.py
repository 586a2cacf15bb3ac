"""QDQ models of other tools: uint8 activations, transposed weights, operators without Q and DQ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import tvm
from onnx_models import expected, model, node, normal, save

import hwptq
from hwptq import passes
from hwptq.errors import UnsupportedError
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.ir.dataflow import bindings, op_name
from hwptq.ir.provenance import Origin, Part, origins
from hwptq.report.coverage import bits, float_nodes
from hwptq.targets import load_target

ARM = load_target("arm-cortex-a")

SCALES = {"input": 0.05, "conv": 0.1, "dense": 0.2}


def _int8_weight(seed: int, *shape: int, limit: int = 127) -> np.ndarray:
    return np.random.default_rng(seed).integers(-limit, limit + 1, shape).astype(np.int8)


def _qdq(name: str, source: str, tensor: str) -> list[onnx.NodeProto]:
    params = f"{name}_scale {name}_zero"
    return [
        node("QuantizeLinear", f"{source} {params}", f"{source}_q", f"q_{name}"),
        node("DequantizeLinear", f"{source}_q {params}", tensor, f"dq_{name}"),
    ]


def _network(dtype: type, zero: int, limit: int = 127) -> onnx.ModelProto:
    """Conv, Relu | MaxPool, Flatten without Q and DQ | Gemm with a transposed weight."""
    nodes = [
        *_qdq("input", "x", "x_f"),
        node("DequantizeLinear", "w conv_scales conv_zeros", "w_f", "dq_w", axis=0),
        node("Conv", "x_f w_f b", "c", "conv", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r", "relu"),
        *_qdq("conv", "r", "r_f"),
        node("MaxPool", "r_f", "p", "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "p", "flat", "flatten"),
        node("DequantizeLinear", "v dense_weight_scale", "v_f", "dq_v"),
        node("Gemm", "flat v_f", "d", "dense", transB=1),
        *_qdq("dense", "d", "y"),
    ]
    constants = {
        "w": _int8_weight(0, 6, 3, 3, 3, limit=limit),
        "v": _int8_weight(1, 5, 6 * 16, limit=limit),
        "b": normal(2, 6),
        "conv_scales": np.linspace(0.001, 0.01, 6).astype(np.float32),
        "conv_zeros": np.zeros(6, np.int8),
        "dense_weight_scale": np.float32(0.004),
    }
    for name, scale in SCALES.items():
        constants |= {f"{name}_scale": np.float32(scale), f"{name}_zero": dtype(zero)}
    return model(nodes, {"x": [1, 3, 8, 8]}, constants, ["y"], opset=21 if dtype is np.int16 else 19)


def _normalized(proto: onnx.ModelProto, folder: Path) -> tvm.IRModule:
    module = import_onnx(save(proto, folder)).module
    normalize = passes.NormalizeQDQ()
    return tvm.ir.transform.Sequential([normalize, passes.FuseConvRelu(), normalize])(module)


@pytest.mark.parametrize(
    ("dtype", "zero"), [(np.uint8, 128), (np.uint8, 7), (np.int8, 0), (np.int8, -100), (np.int16, 0)]
)
def test_normalizing_keeps_every_value(dtype: type, zero: int, tmp_path: Path) -> None:
    proto = _network(dtype, zero)
    inputs = {"x": normal(3, 1, 3, 8, 8, spread=3.0)}
    found = Interpreter(_normalized(proto, tmp_path)).run(inputs)
    np.testing.assert_allclose(found[0], expected(proto, inputs)[0], atol=SCALES["dense"] * 1.01)
    assert np.mean(found[0] == expected(proto, inputs)[0]) > 0.9  # a float sum may round to the other side


@pytest.mark.parametrize(("dtype", "zero"), [(np.uint8, 128), (np.int8, -3), (np.int16, 0)])
def test_lowers_to_integers_throughout(dtype: type, zero: int, tmp_path: Path) -> None:
    normalized = _normalized(_network(dtype, zero), tmp_path)
    integer = passes.LowerToInteger(ARM)(normalized)
    assert float_nodes(integer) == []
    inputs = {"x": normal(4, 1, 3, 8, 8, spread=2.0)}
    simulated, computed = (Interpreter(m).run(inputs)[0] for m in (normalized, integer))
    np.testing.assert_allclose(computed, simulated, atol=2.01 * SCALES["dense"])


def test_quantize_is_a_part_of_its_node(tmp_path: Path) -> None:
    normalized = _normalized(_network(np.uint8, 128), tmp_path)
    named = origins(normalized["main"])
    found = [named[v] for v, value in bindings(normalized["main"]) if op_name(value) == "quantize"]
    nodes = ("x", "conv", "pool", "flatten", "dense")
    assert found == [Origin(node, part=Part.CODES) for node in nodes]


@pytest.mark.parametrize(("limit", "dtype"), [(7, "int4"), (8, "int8"), (127, "int8")])
def test_weights_that_fit_int4_are_int4(limit: int, dtype: str, tmp_path: Path) -> None:
    proto = _network(np.int8, 0, limit)
    if limit == 8:  # one value that does not fit
        weight = next(t for t in proto.graph.initializer if t.name == "w")
        array = onnx.numpy_helper.to_array(weight).copy()
        array[0, 0, 0, 0] = 8
        weight.CopyFrom(onnx.numpy_helper.from_array(array, "w"))
    rows = bits(passes.LowerToInteger(ARM)(_normalized(proto, tmp_path)))
    assert {row["name"]: row["weight"] for row in rows}["conv"] == dtype


def test_takes_int4_initializers(tmp_path: Path) -> None:
    proto = _network(np.int8, 0, limit=7)
    inputs = {"x": normal(5, 1, 3, 8, 8)}
    as_int8 = Interpreter(_normalized(proto, tmp_path)).run(inputs)
    for tensor in [t for t in proto.graph.initializer if t.name in ("w", "v")]:
        values = onnx.numpy_helper.to_array(tensor)
        int4 = onnx.helper.make_tensor(tensor.name, onnx.TensorProto.INT4, values.shape, values.ravel())
        tensor.CopyFrom(int4)
    zeros = next(t for t in proto.graph.initializer if t.name == "conv_zeros")
    zeros.CopyFrom(onnx.helper.make_tensor("conv_zeros", onnx.TensorProto.INT4, (6,), [0] * 6))
    proto.opset_import[0].version = 21
    proto.ir_version = 10
    np.testing.assert_array_equal(Interpreter(_normalized(proto, tmp_path)).run(inputs)[0], as_int8[0])


def test_refuses_4_bit_activations(tmp_path: Path) -> None:
    proto = _network(np.int8, 0)
    zero = next(t for t in proto.graph.initializer if t.name == "input_zero")
    zero.CopyFrom(onnx.helper.make_tensor("input_zero", onnx.TensorProto.INT4, (), [0]))
    proto.opset_import[0].version = 21
    proto.ir_version = 10
    with pytest.raises(UnsupportedError, match=r"q_input.*4-bit activations"):
        import_onnx(save(proto, tmp_path))


def test_leaves_the_module_it_is_given(tmp_path: Path) -> None:
    module = import_onnx(save(_network(np.uint8, 128), tmp_path)).module
    before = module.script(show_meta=True)
    passes.NormalizeQDQ()(module)
    assert module.script(show_meta=True) == before


def test_is_quantized_tells_a_float_model(tmp_path: Path) -> None:
    float_model = model([node("Relu", "x", "y")], {"x": [1, 4]})
    assert not passes.is_quantized(import_onnx(save(float_model, tmp_path, "float")).module)
    assert passes.is_quantized(import_onnx(save(_network(np.int8, 0), tmp_path, "qdq")).module)


@pytest.mark.parametrize(("dtype", "zero"), [(np.uint8, 128), (np.int16, 0)])
def test_a_model_of_another_tool_compiles(
    dtype: type, zero: int, runnable: Callable[[str], str], tmp_path: Path
) -> None:
    path = save(_network(dtype, zero), tmp_path)
    data = {"x": normal(5, 3, 3, 8, 8, spread=2.0)}
    report = hwptq.compile(path, runnable("x86-64-avx2"), None, data, output=tmp_path / "out").report
    assert report["bit_exact"]["mismatches"] == 0
    assert report["coverage"]["nodes_float"] == []
    assert {row["activation"] for row in report["bits"]} == {"int16" if dtype is np.int16 else "int8"}


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_what_is_moved_before_its_q_is_in_integers(tmp_path: Path, dtype: type) -> None:
    """Conv, Transpose, Slice: both ways have a Q of one scale, and the layer none of its own."""
    nodes = [
        *_qdq("input", "x", "x_f"),
        node("DequantizeLinear", "w scales zeros", "w_f", "dq_w", axis=0),
        node("Conv", "x_f w_f", "c", "conv", pads=[1, 1, 1, 1]),
        node("Transpose", "c", "t", "turned", perm=[0, 2, 3, 1]),
        node("Slice", "t begin end axis", "s", "part"),
        *_qdq("conv", "s", "y"),
        node("QuantizeLinear", "t conv_scale conv_zero", "t_q", "q_whole"),
        node("DequantizeLinear", "t_q conv_scale conv_zero", "z", "dq_whole"),
    ]
    constants = {
        "w": _int8_weight(0, 6, 3, 3, 3), "scales": np.linspace(0.001, 0.01, 6).astype(np.float32),
        "zeros": np.zeros(6, np.int8), "begin": np.array([1]), "end": np.array([5]), "axis": np.array([3]),
    }  # fmt: skip
    constants |= {f"{n}_scale": np.float32(s) for n, s in SCALES.items()}
    constants |= {f"{n}_zero": dtype(3) for n in SCALES}
    proto = model(nodes, {"x": [1, 3, 8, 8]}, constants, ["y", "z"], opset=19)
    normalized = _normalized(proto, tmp_path)
    inputs = {"x": normal(4, 1, 3, 8, 8)}
    modules = import_onnx(save(proto, tmp_path)).module, normalized
    for one, other in zip(*(Interpreter(m).run(inputs) for m in modules), strict=True):
        np.testing.assert_array_equal(one, other)
    assert float_nodes(passes.LowerToInteger(ARM)(normalized)) == []


def test_places_that_are_read_are_no_values_that_are_moved(tmp_path: Path) -> None:
    """Rows of a tensor, by places that are computed, between Q and DQ."""
    nodes = [
        *_qdq("input", "x", "x_f"),
        node("ArgMax", "x", "i", "places", axis=1, keepdims=0),
        node("Gather", "x_f i", "g", "rows", axis=1),
        *_qdq("input", "g", "y"),
    ]
    constants = {"input_scale": np.float32(0.05), "input_zero": np.int8(3)}
    proto = model(nodes, {"x": [1, 4]}, constants, opset=19)
    normalized = _normalized(proto, tmp_path)
    inputs = {"x": normal(4, 1, 4)}
    found = Interpreter(normalized).run(inputs)[0]
    np.testing.assert_array_equal(found, expected(proto, inputs)[0])
