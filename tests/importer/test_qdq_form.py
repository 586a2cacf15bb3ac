"""Models that other tools have quantized, in any form, become values between Q and DQ: the same values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_models import expected, node, normal, save

from hwptq.errors import UnsupportedError
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.model import Model
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.ir.dataflow import bindings, constant, op_name

SHAPE = [1, 3, 8, 8]
INPUT = {"xs": np.float32(0.05), "xz": np.uint8(120)}


def _codes(seed: int, *shape: int, dtype: Any = np.int8, low: int = -127, high: int = 127) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high + 1, shape).astype(dtype)


def _of_microsoft(op: str, inputs: str, output: str, name: str = "", **attributes: Any) -> onnx.NodeProto:
    return node(op, inputs, output, name, domain="com.microsoft", **attributes)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int]],
    constants: dict[str, Any] | None = None,
    dtype: int = TensorProto.FLOAT,
    result: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model of the newest operators and of those of ONNX Runtime; its output is that of the last node."""
    graph = helper.make_graph(
        nodes, "graph",
        [helper.make_tensor_value_info(n, dtype, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(nodes[-1].output[0], result, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _imported(proto: onnx.ModelProto, folder: Path) -> Model:
    return import_onnx(save(proto, folder))


def _run(found: Model, **inputs: np.ndarray) -> np.ndarray:
    return np.asarray(Interpreter(found.module).run(inputs)[0])


def _kinds(found: Model) -> list[str]:
    return [name for _, value in bindings(found.module["main"]) if (name := op_name(value))]


def _by_runtime(proto: onnx.ModelProto, **inputs: np.ndarray) -> np.ndarray:
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = runtime.GraphOptimizationLevel(0), 4
    session = runtime.InferenceSession(proto.SerializeToString(), options)
    return np.asarray(session.run(None, inputs)[0])


def _weight(found: Model) -> tuple[np.ndarray, np.ndarray]:
    """(codes, scale) of the only weight behind a DQ."""
    held = [
        (values, constant(value.args[1]))
        for _, value in bindings(found.module["main"])
        if op_name(value) == "dequantize" and (values := _source(found, value)) is not None
    ]
    [(codes, scale)] = held
    assert scale is not None
    return codes, scale


def _source(found: Model, value: Any) -> np.ndarray | None:
    made = dict(bindings(found.module["main"])).get(value.args[0])
    return constant(made.args[0] if op_name(made) == "builtin.stop_lift_params" else value.args[0])


# --- QOperator ---


def test_convolutions_pools_and_products_of_codes(tmp_path: Path) -> None:
    """Q, QLinearConv by channel with a bias, MaxPool and Flatten of codes, QLinearMatMul, DQ."""
    nodes = [
        node("QuantizeLinear", "x xs xz", "xq", "first"),
        node("QLinearConv", "xq xs xz w ws wz as az b", "a", "conv", pads=[1, 1, 1, 1]),
        node("MaxPool", "a", "p", "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Reshape", "p shape", "f", "flat"),
        node("QLinearMatMul", "f as az v vs vz ys yz", "yq", "dense"),
        node("DequantizeLinear", "yq ys yz", "y", "last"),
    ]
    constants = INPUT | {
        "w": _codes(0, 6, 3, 3, 3), "ws": np.linspace(0.002, 0.01, 6).astype("f"), "wz": np.zeros(6, np.int8),
        "b": _codes(1, 6, dtype=np.int32, low=-900, high=900), "as": np.float32(0.06), "az": np.uint8(17),
        "v": _codes(2, 96, 5), "vs": np.float32(0.004), "vz": np.int8(0), "shape": np.array([1, -1]),
        "ys": np.float32(0.2), "yz": np.uint8(131),
    }  # fmt: skip
    proto, x = _model(nodes, {"x": SHAPE}, constants), normal(3, *SHAPE, spread=3)
    found = _imported(proto, tmp_path)
    difference = np.abs(_run(found, x=x) - expected(proto, {"x": x})[0])
    assert difference.max() <= 0.2 * 1.01
    assert np.mean(difference > 0.1) < 0.1  # sums of float32 round to the other side now and then
    assert _kinds(found).count("quantize") == 5  # with those of the pool and of the reshape


BINARY = {"QLinearAdd": np.add, "QLinearMul": np.multiply}


@pytest.mark.parametrize("op", list(BINARY))
def test_operators_of_two_codes(tmp_path: Path, op: str) -> None:
    nodes = [
        node("QuantizeLinear", "x xs xz", "xq"),
        _of_microsoft(op, "xq xs xz c cs cz ys yz", "yq", "op"),
        node("DequantizeLinear", "yq ys yz", "y"),
    ]
    constants = INPUT | {
        "c": _codes(1, 3, 1, 1, dtype=np.uint8, low=0, high=200), "cs": np.float32(0.03), "cz": np.uint8(100),
        "ys": np.float32(0.08), "yz": np.uint8(60),
    }  # fmt: skip
    x = normal(2, *SHAPE)
    codes = np.clip(np.rint(x / INPUT["xs"]) + 120, 0, 255)
    c = (constants["c"].astype(np.float32) - 100) * np.float32(0.03)
    real = BINARY[op]((codes - 120) * INPUT["xs"], c)
    wanted = (np.clip(np.rint(real / 0.08) + 60, 0, 255) - 60) * 0.08
    found = _run(_imported(_model(nodes, {"x": SHAPE}, constants), tmp_path), x=x)
    assert np.abs(found - wanted).max() <= 0.0801
    assert np.mean(np.abs(found - wanted) > 0.01) < 0.02


@pytest.mark.parametrize(
    ("op", "attributes", "width"),
    [
        ("QLinearSigmoid", {}, 8), ("QLinearLeakyRelu", {"alpha": 0.2}, 8),
        ("QLinearGlobalAveragePool", {}, 1),
        ("QLinearAveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}, 4),
        ("QLinearSoftmax", {"axis": 3, "opset": 13}, 8),
    ],
)  # fmt: skip
def test_operators_of_one_code(tmp_path: Path, op: str, attributes: dict[str, Any], width: int) -> None:
    nodes = [
        node("QuantizeLinear", "x xs xz", "xq"),
        _of_microsoft(op, "xq xs xz ys yz", "yq", "op", **attributes),
        node("DequantizeLinear", "yq ys yz", "y"),
    ]
    constants = INPUT | {"ys": np.float32(1 / 128), "yz": np.uint8(3)}
    proto, x = _model(nodes, {"x": SHAPE}, constants), normal(2, *SHAPE)
    found = _run(_imported(proto, tmp_path), x=x)
    assert found.shape[-1] == width
    wanted = _by_runtime(proto, x=x)
    assert np.abs(found - wanted).max() <= 1.01 / 128


@pytest.mark.parametrize(
    ("opset", "axis", "over"), [(11, 1, (1, 2, 3)), (11, 2, (2, 3)), (13, 1, (1,)), (13, 2, (2,))]
)
def test_a_softmax_of_codes_says_itself_which_one_it_is(
    tmp_path: Path, opset: int, axis: int, over: tuple[int, ...]
) -> None:
    """Before opset 13 it is over all axes from one on."""
    nodes = [
        node("QuantizeLinear", "x xs xz", "xq"),
        _of_microsoft("QLinearSoftmax", "xq xs xz ys yz", "yq", "op", axis=axis),
        node("DequantizeLinear", "yq ys yz", "y"),
    ]
    nodes[1].attribute.append(helper.make_attribute("opset", opset))
    constants = INPUT | {"ys": np.float32(1 / 256), "yz": np.uint8(0)}
    x = normal(2, *SHAPE, spread=3)
    real = (np.clip(np.rint(x / INPUT["xs"]) + 120, 0, 255) - 120) * np.float64(INPUT["xs"])
    powers = np.exp(real - real.max(over, keepdims=True))
    wanted = powers / powers.sum(over, keepdims=True)
    found = _run(_imported(_model(nodes, {"x": SHAPE}, constants), tmp_path), x=x)
    assert found.shape == tuple(SHAPE)
    assert np.abs(found - wanted).max() <= 1.01 / 256  # 1 is beyond the last code


def test_concat_and_product_with_a_bias_of_codes(tmp_path: Path) -> None:
    nodes = [
        node("QuantizeLinear", "x xs xz", "xq"),
        _of_microsoft("QLinearConcat", "cs cz xq xs xz k ks kz", "c", "join", axis=1),
        _of_microsoft("QGemm", "c cs cz w ws wz b", "y", "dense", transB=1, alpha=0.5),
    ]
    constants = INPUT | {
        "k": _codes(1, 2, 4, dtype=np.uint8, low=0, high=255), "ks": np.float32(0.02), "kz": np.uint8(9),
        "cs": np.float32(0.05), "cz": np.uint8(100), "w": _codes(2, 5, 12, dtype=np.uint8, low=0, high=255),
        "ws": np.float32([0.1, 0.2, 0.3, 0.4, 0.5]), "wz": np.uint8([128, 130, 100, 128, 128]),
        "b": _codes(3, 5, dtype=np.int32, low=-900, high=900),
    }  # fmt: skip
    proto, x = _model(nodes, {"x": [2, 8]}, constants), normal(2, 2, 8)
    np.testing.assert_allclose(
        _run(_imported(proto, tmp_path), x=x), _by_runtime(proto, x=x), rtol=0.02, atol=0.05
    )


def test_codes_as_inputs_and_outputs_of_the_model(tmp_path: Path) -> None:
    nodes = [
        node("DequantizeLinear", "x xs xz", "xf", "first"),
        node("Relu", "xf", "r", "relu"),
        node("QuantizeLinear", "r ys yz", "y", "last"),
    ]
    constants = INPUT | {"ys": np.float32(0.03), "yz": np.uint8(7)}
    proto = _model(nodes, {"x": [1, 256]}, constants, TensorProto.UINT8, TensorProto.UINT8)
    x = np.arange(256, dtype=np.uint8)[None]
    found = _run(_imported(proto, tmp_path), x=x)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected(proto, {"x": x})[0])


# --- weights ---


def _dense(weight: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, **how: Any) -> onnx.ModelProto:
    """x between Q and DQ, times a constant behind a DQ."""
    nodes = [
        node("QuantizeLinear", "x xs xz", "xq"),
        node("DequantizeLinear", "xq xs xz", "xf"),
        node("DequantizeLinear", "w ws wz" if zero is not None else "w ws", "wf", "weight", **how),
        node("MatMul", "xf wf", "y", "dense"),
    ]
    constants = INPUT | {"w": weight, "ws": scale} | ({} if zero is None else {"wz": zero})
    return _model(nodes, {"x": [2, weight.shape[0]]}, constants)


FORMS = {
    "int8": (np.int8, -128, 127, 0),
    "uint8": (np.uint8, 0, 255, 128),
    "int4, zero point": ("int4", -8, 7, 3),
    "uint4": ("uint4", 0, 15, 5),
    "uint8, a few codes": (np.uint8, 90, 200, 131),
    "int16, a few codes": (np.int16, -120, 120, 0),
}


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("axis", [None, 1])
def test_zero_points_and_dtypes_of_weights_leave_exactly(tmp_path: Path, form: str, axis: int | None) -> None:
    name, low, high, zero = FORMS[form]
    dtype = getattr(TensorProto, name.upper()) if isinstance(name, str) else None
    held = helper.tensor_dtype_to_np_dtype(dtype) if dtype else name
    codes = _codes(4, 16, 6, dtype=np.int32, low=low, high=high)
    scale = np.float32(0.01) if axis is None else np.linspace(0.01, 0.02, 6).astype(np.float32)
    proto = _dense(codes.astype(held), scale, np.full(scale.shape, zero).astype(held), axis=1)
    found = _imported(proto, tmp_path)
    kept, found_scale = _weight(found)
    np.testing.assert_array_equal(kept, codes - zero)
    assert kept.dtype == np.int8
    assert found.warnings == ()
    np.testing.assert_array_equal(np.broadcast_to(found_scale, (6,)), np.broadcast_to(scale, (6,)))


def test_blocks_of_one_scale_a_channel_are_channels(tmp_path: Path) -> None:
    codes, scale = _codes(5, 32, 6), np.linspace(0.01, 0.02, 6).astype(np.float32)
    proto = _dense(codes, np.stack([scale, scale]), None, axis=0, block_size=16)
    kept, found = _weight(_imported(proto, tmp_path))
    np.testing.assert_array_equal(kept, codes)
    np.testing.assert_array_equal(found, scale)


def test_blocks_whose_scales_are_multiples_keep_their_values(tmp_path: Path) -> None:
    codes = _codes(6, 32, 6, low=-7, high=7)
    scale = np.float32([[1, 2, 3, 4, 5, 6], [16, 8, 9, 10, 11, 12]]) * np.float32(2**-8)
    found = _imported(_dense(codes, scale, None, axis=0, block_size=16), tmp_path)
    kept, found_scale = _weight(found)
    assert found.warnings == ()
    np.testing.assert_array_equal(kept * found_scale, codes * np.repeat(scale, 16, 0))


@pytest.mark.parametrize("case", ["blocks", "another axis", "9 bits"])
def test_what_has_no_form_of_8_bits_stays_wide(tmp_path: Path, case: str) -> None:
    codes, scale, how, zero = _codes(7, 32, 32), np.float32(0.01), {"axis": 1}, None
    if case == "9 bits":
        codes, zero = codes.astype(np.uint8), np.uint8(20)
    elif case == "blocks":
        scale, how = np.abs(normal(8, 2, 32)) + np.float32(0.1), {"axis": 0, "block_size": 16}
    else:
        scale, how = np.linspace(0.01, 0.02, 32).astype(np.float32), {"axis": 0}
    proto, x = _dense(codes, scale, zero, **how), normal(9, 2, 32)
    found = _imported(proto, tmp_path)
    assert _weight(found)[0].dtype == np.int16
    assert found.warnings == ()
    wanted = expected(proto, {"x": x})[0]
    assert np.linalg.norm(_run(found, x=x) - wanted) < 1e-4 * np.linalg.norm(wanted)


def test_codes_of_float_constants_are_folded(tmp_path: Path) -> None:
    """Trainers and some tools leave weights in float, behind Q and DQ of their own."""
    weight, scale = normal(10, 4, 3, 3, 3), np.float32([0.02, 0.03, 0.04, 0.01])
    nodes = [
        node("QuantizeLinear", "x xs xz", "xq"),
        node("DequantizeLinear", "xq xs xz", "xf"),
        node("QuantizeLinear", "w ws wz", "wq", axis=0),
        node("DequantizeLinear", "wq ws wz", "wf", axis=0),
        node("Conv", "xf wf", "y", "conv"),
    ]
    constants = INPUT | {"w": weight, "ws": scale, "wz": np.zeros(4, np.int8)}
    kept, found = _weight(_imported(_model(nodes, {"x": SHAPE}, constants), tmp_path))
    steps = weight / scale[:, None, None, None]
    np.testing.assert_array_equal(kept, np.clip(np.rint(steps), -128, 127))
    np.testing.assert_array_equal(found, scale)


def test_uint16_activations_become_int16(tmp_path: Path) -> None:
    def proto(zero: int) -> onnx.ModelProto:
        nodes = [
            node("QuantizeLinear", "x xs xz", "xq", "first"),
            node("DequantizeLinear", "xq xs xz", "xf"),
            node("MatMul", "xf w", "y", "dense"),
        ]
        constants = {"xs": np.float32(1e-3), "xz": np.uint16(zero), "w": normal(1, 8, 4)}
        return _model(nodes, {"x": [2, 8]}, constants)

    x = normal(2, 2, 8)
    wanted = expected(proto(2**15), {"x": x})[0]
    np.testing.assert_allclose(_run(_imported(proto(2**15), tmp_path), x=x), wanted, rtol=1e-5, atol=1e-5)
    with pytest.raises(UnsupportedError, match=r"node 'first'.*uint16 with a zero point of 9; quantize"):
        _imported(proto(9), tmp_path)


# --- weights alone ---


def test_weights_alone_are_real_and_no_activation_is_quantized(tmp_path: Path) -> None:
    proto = _model(
        [node("DequantizeLinear", "w ws wz", "wf", axis=1), node("MatMul", "x wf", "y", "dense")],
        {"x": [2, 16]},
        {
            "w": _codes(1, 16, 4, dtype=np.uint8, low=0, high=255),
            "ws": normal(2, 4),
            "wz": np.full(4, 128, "u1"),
        },
    )
    found, x = _imported(proto, tmp_path), normal(3, 2, 16)
    assert _kinds(found) == ["matmul"]
    np.testing.assert_allclose(_run(found, x=x), expected(proto, {"x": x})[0], rtol=1e-5, atol=1e-4)


def _dynamic(order: str) -> list[onnx.NodeProto]:
    """How ONNX Runtime quantizes a product dynamically; the scales are multiplied in one order or another."""
    nodes = [
        node("DynamicQuantizeLinear", "x", "xq xs xz", "quantize"),
        node("MatMulInteger", "xq w xz wz", "i", "dense"),
        node("Cast", "i", "c", "cast", to=TensorProto.FLOAT),
    ]
    if order == "scales first":
        return [*nodes, node("Mul", "xs ws", "s"), node("Mul", "c s", "m"), node("Add", "m b", "y", "bias")]
    return [*nodes, node("Mul", "ws c", "s"), node("Mul", "s xs", "m"), node("Add", "b m", "y", "bias")]


@pytest.mark.parametrize("order", ["scales first", "one by one"])
@pytest.mark.parametrize("channels", [1, 5])
def test_dynamic_products_keep_their_weights(tmp_path: Path, order: str, channels: int) -> None:
    codes = _codes(1, 16, 5)
    scale = np.linspace(0.01, 0.02, channels).astype(np.float32).reshape(() if channels == 1 else 5)
    constants = {"w": codes, "ws": scale, "wz": np.int8(0), "b": normal(2, 5)}
    proto, x = _model(_dynamic(order), {"x": [3, 16]}, constants), normal(3, 3, 16)
    found = _imported(proto, tmp_path)
    assert _kinds(found) == ["matmul", "add"]
    np.testing.assert_allclose(_run(found, x=x), x @ (codes * scale) + constants["b"], rtol=1e-4, atol=1e-4)
    wanted = expected(proto, {"x": x})[0]
    assert np.linalg.norm(_run(found, x=x) - wanted) < 0.02 * np.linalg.norm(wanted)


def test_dynamic_convolutions(tmp_path: Path) -> None:
    nodes = [
        node("DynamicQuantizeLinear", "x", "xq xs xz"),
        node("ConvInteger", "xq w xz wz", "i", "conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Cast", "i", "c", to=TensorProto.FLOAT),
        node("Mul", "xs ws", "s"),
        node("Mul", "c s", "y"),
    ]
    codes = _codes(1, 4, 3, 3, 3, dtype=np.uint8, low=0, high=255)
    constants = {"w": codes, "ws": np.float32(0.01), "wz": np.uint8(121)}
    proto, x = _model(nodes, {"x": SHAPE}, constants), normal(3, *SHAPE)
    found, wanted = _imported(proto, tmp_path), expected(proto, {"x": x})[0]
    assert _kinds(found) == ["nn.conv2d"]
    assert np.linalg.norm(_run(found, x=x) - wanted) < 0.02 * np.linalg.norm(wanted)


def test_products_of_two_dynamic_tensors(tmp_path: Path) -> None:
    nodes = [
        node("DynamicQuantizeLinear", "a", "aq as az"),
        node("DynamicQuantizeLinear", "b", "bq bs bz"),
        node("MatMulInteger", "aq bq az bz", "i", "product"),
        node("Cast", "i", "c", to=TensorProto.FLOAT),
        node("Mul", "as bs", "s"),
        node("Mul", "c s", "y"),
    ]
    a, b = normal(1, 3, 8), normal(2, 8, 5)
    found = _imported(_model(nodes, {"a": [3, 8], "b": [8, 5]}), tmp_path)
    assert _kinds(found) == ["matmul"]
    np.testing.assert_allclose(_run(found, a=a, b=b), a @ b, rtol=1e-5, atol=1e-5)


def test_tables_of_codes(tmp_path: Path) -> None:
    """Codes are gathered, then dequantized; as if the table were dequantized."""
    nodes = [
        node("Gather", "w i", "g", "rows"),
        node("DequantizeLinear", "g ws wz", "r"),
        node("MatMul", "r v", "y", "dense"),
    ]
    constants = {"w": _codes(1, 20, 8), "ws": np.float32(0.02), "wz": np.int8(3), "v": normal(2, 8, 3)}
    proto = _model(nodes, {"i": [1, 5]}, constants, TensorProto.INT64)
    indices = np.array([[3, 0, 19, 7, 7]])
    found = _imported(proto, tmp_path)
    assert [k for k in _kinds(found) if k in ("take", "dequantize", "matmul")] == ["take", "matmul"]
    np.testing.assert_allclose(
        _run(found, i=indices), expected(proto, {"i": indices})[0], rtol=1e-5, atol=1e-5
    )


# --- ONNX Runtime's blocks ---


def _packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes [..., n] in bytes, the first in the lowest bits."""
    each = 8 // bits
    padded = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, -codes.shape[-1] % each)])
    groups = padded.reshape(*padded.shape[:-1], -1, each).astype(np.uint32)
    return (groups << (bits * np.arange(each))).sum(axis=-1).astype(np.uint8)


@settings(deadline=None, max_examples=12)
@given(
    bits=st.sampled_from([2, 4, 8]), zeros=st.sampled_from(["none", "codes", "real"]), bias=st.booleans(),
    depth=st.integers(17, 70), columns=st.integers(1, 7), order=st.sampled_from(["none", "other", "unequal"]),
)  # fmt: skip
def test_products_with_packed_blocks(
    tmp_path_factory: pytest.TempPathFactory, bits: int, zeros: str, bias: bool, depth: int, columns: int,
    order: str,
) -> None:  # fmt: skip
    rng, block = np.random.default_rng(depth), 16
    blocks = -(-depth // block)
    codes = rng.integers(0, 2**bits, (columns, blocks * block))
    scale = rng.uniform(0.01, 0.1, (columns, blocks)).astype(np.float32)
    zero = np.full((columns, blocks), 2 ** (bits - 1), np.float32)
    constants = {"w": _packed(codes, bits).reshape(columns, blocks, -1), "s": scale.reshape(-1)}
    inputs, of_input = ["x", "w", "s", "", "", ""], np.arange(depth) // block
    if order != "none":
        of_input = rng.permutation(of_input) if order == "other" else rng.integers(0, blocks, depth)
        constants["g"], inputs[4] = of_input.astype(np.int32), "g"
    if zeros == "codes":
        zero = rng.integers(0, 2**bits, (columns, blocks)).astype(np.float32)
        constants["z"], inputs[3] = _packed(zero.astype(int), bits).reshape(-1), "z"
    elif zeros == "real":
        zero = rng.uniform(1, 9, (columns, blocks)).astype(np.float32)
        constants["z"], inputs[3] = zero, "z"
    if bias:
        constants["b"], inputs[5] = normal(3, columns), "b"
    product = _of_microsoft(
        "MatMulNBits",
        " ".join(i or "-" for i in inputs).rstrip(" -"),
        "y",
        "dense",
        K=depth,
        N=columns,
        bits=bits,
        block_size=block,
    )
    proto, x = _model([product], {"x": [2, depth]}, constants), normal(4, 2, depth)
    weight = (codes[:, :depth] - zero[:, of_input]) * scale[:, of_input]
    wanted = x @ weight.T + (constants["b"] if bias else 0)
    found = _imported(proto, tmp_path_factory.mktemp("nbits"))
    np.testing.assert_allclose(_run(found, x=x), wanted, rtol=1e-4, atol=1e-4)
    in_blocks = np.array_equal(np.sort(of_input), np.arange(depth) // block)
    assert [w.kind for w in found.warnings] == (["weights"] if zeros != "real" and in_blocks else [])


def test_a_zero_point_alone_in_its_byte_has_its_own_bits(tmp_path: Path) -> None:
    """One block of 16, codes of 4 bits: what stands in the upper half of the byte is nothing."""
    codes, constants = _codes(1, 2, 16, low=0, high=15), {"s": np.ones(2, np.float32)}
    constants |= {"w": _packed(codes, 4).reshape(2, 1, 8), "z": np.array([0xF3, 0x0B], np.uint8)}
    product = _of_microsoft("MatMulNBits", "x w s z", "y", "dense", K=16, N=2, bits=4, block_size=16)
    proto, x = _model([product], {"x": [1, 16]}, constants), normal(2, 1, 16)
    wanted = x @ (codes - np.array([[3], [11]])).T.astype(np.float32)
    np.testing.assert_allclose(_run(_imported(proto, tmp_path), x=x), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("of_input", [[0] * 17 + [2], [0] * 17 + [-1], [0] * 5])
def test_inputs_of_no_block_are_refused(tmp_path: Path, of_input: list[int]) -> None:
    constants = {"w": np.zeros((2, 2, 8), np.uint8), "s": np.ones(4, np.float32)}
    constants["g"] = np.array(of_input, np.int32)
    product = _of_microsoft("MatMulNBits", "x w s - g", "y", "dense", K=18, N=2, bits=4, block_size=16)
    with pytest.raises(UnsupportedError, match=r"'dense' \(MatMulNBits\): g_idx names no block"):
        _imported(_model([product], {"x": [1, 18]}, constants), tmp_path)


@pytest.mark.parametrize("packed", [False, True])
def test_tables_with_packed_blocks(tmp_path: Path, packed: bool) -> None:
    codes, scale = _codes(1, 9, 32, low=0, high=15), np.abs(normal(2, 9, 2)) + np.float32(0.1)
    data = numpy_helper.from_array(_packed(codes, 4), "w")
    if not packed:
        data = helper.make_tensor("w", TensorProto.UINT4, (9, 32), codes.ravel())
    gather = _of_microsoft(
        "GatherBlockQuantized", "w i s z" if not packed else "w i s", "y", "rows", block_size=16
    )
    proto = _model([gather], {"i": [1, 4]}, {"s": scale}, TensorProto.INT64)
    proto.graph.initializer.append(data)
    if not packed:
        proto.graph.initializer.append(helper.make_tensor("z", TensorProto.UINT4, (9, 2), [8] * 18))
    indices = np.array([[8, 0, 3, 3]])
    wanted = ((codes.astype(np.float32) - 8) * np.repeat(scale, 16, 1))[indices]
    np.testing.assert_allclose(_run(_imported(proto, tmp_path), i=indices), wanted, rtol=1e-6)


def test_tables_of_bytes_have_their_zero_in_the_middle(tmp_path: Path) -> None:
    codes, scale = (
        _codes(1, 9, 32, dtype=np.uint8, low=0, high=255),
        np.abs(normal(2, 9, 2)) + np.float32(0.1),
    )
    gather = _of_microsoft("GatherBlockQuantized", "w i s", "y", "rows", block_size=16, bits=8)
    proto = _model([gather], {"i": [1, 4]}, {"w": codes, "s": scale}, TensorProto.INT64)
    indices = np.array([[8, 0, 3, 3]])
    wanted = ((codes.astype(np.float32) - 128) * np.repeat(scale, 16, 1))[indices]
    np.testing.assert_allclose(_run(_imported(proto, tmp_path), i=indices), wanted, rtol=1e-6)


def test_codes_that_do_not_fill_bytes_are_refused(tmp_path: Path) -> None:
    product = _of_microsoft("MatMulNBits", "x w s", "y", "dense", K=16, N=2, bits=3, block_size=16)
    constants = {"w": np.zeros((2, 1, 6), np.uint8), "s": np.ones(2, np.float32)}
    with pytest.raises(UnsupportedError, match=r"'dense' \(MatMulNBits\): 3 bits; use 2, 4 or 8"):
        _imported(_model([product], {"x": [1, 16]}, constants), tmp_path)


@pytest.mark.parametrize("channels", [1, 16])
def test_lstms_with_codes_for_weights(tmp_path: Path, channels: int) -> None:
    """Two directions of 4: what an LSTM of the real weights gives."""
    codes = {"w": _codes(1, 2, 3, 16), "r": _codes(2, 2, 4, 16)}
    scale = {f"{n}s": (0.01 + 0.01 * abs(normal(i, 2, channels))) for i, n in enumerate("wr")}
    zeros = {f"{n}z": np.zeros((2, channels), np.int8) for n in "wr"}
    tied = {k: v.reshape(2) if channels == 1 else v for k, v in {**scale, **zeros}.items()}
    fused = node("DynamicQuantizeLSTM", "x w r b s ws wz rs rz", "y", "layer", hidden_size=4,
                 direction="bidirectional", domain="com.microsoft")  # fmt: skip
    fused.input[:] = ["x", "w", "r", "b", "", "", "", "", "ws", "wz", "rs", "rz"]
    proto, x = _model([fused], {"x": [5, 1, 3]}, {**codes, "b": normal(3, 2, 32), **tied}), normal(4, 5, 1, 3)
    real = {n: (c * scale[f"{n}s"][:, None]).swapaxes(1, 2) for n, c in codes.items()}
    layer = node("LSTM", "x w r b", "y", "layer", hidden_size=4, direction="bidirectional")
    plain = _model([layer], {"x": [5, 1, 3]}, {**real, "b": normal(3, 2, 32)})
    np.testing.assert_array_equal(
        _run(_imported(proto, tmp_path), x=x), _run(_imported(plain, tmp_path), x=x)
    )
