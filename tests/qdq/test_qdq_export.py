"""model.qdq.onnx: a standard file that computes what the QDQ module does, and that can be compiled again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_models import model, node, normal, save

from hwptq import passes
from hwptq.calibration import calibrate
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_onnx, import_proto
from hwptq.pipeline.stages import fuse, normalize
from hwptq.pipeline.step import Job
from hwptq.qdq_export import NotExportable, export_qdq, save_qdq
from hwptq.report.coverage import float_nodes
from hwptq.targets import load_target

STANDARD = {"", "ai.onnx"}


def _every_operator() -> onnx.ModelProto:
    nodes = [
        node("Conv", "x w b", "c", "conv", pads=[0, 1, 1, 0], strides=[2, 1]),
        node("Clip", "c low high", "a", "clip"),
        node("MaxPool", "a", "m", "max", kernel_shape=[2, 2], strides=[1, 1], ceil_mode=1),
        node("AveragePool", "m", "v", "average", kernel_shape=[2, 2], pads=[1, 1, 0, 0]),
        node("Sigmoid", "v", "s", "sigmoid"),
        node("Mul", "v s", "swish", "mul"),
        node("Pad", "swish pads", "p", "pad"),
        node("Slice", "p starts ends axes", "s0", "slice"),
        node("Resize", "s0 - scales", "s1", "nearest", nearest_mode="floor"),
        node("Resize", "s1 - half", "sl", "linear", mode="linear"),
        node("Concat", "sl sl", "cc", "concat", axis=1),
        node("GlobalAveragePool", "cc", "g", "global"),
        node("Flatten", "g", "f", "flatten"),
        node("Softmax", "f", "sm", "softmax"),
        node("MatMul", "sm v2", "d", "dense"),
        node("LeakyRelu", "d", "y", "leaky", alpha=0.1),
    ]
    constants = {
        "w": normal(0, 5, 3, 3, 3, spread=0.3), "b": normal(1, 5),
        "low": np.float32(-1), "high": np.float32(2),
        "pads": np.array([0, 0, 1, 0, 0, 0, 0, 2]), "starts": np.array([1]), "ends": np.array([4]),
        "axes": np.array([1]), "scales": np.float32([1, 1, 2, 2]), "half": np.float32([1, 1, 0.5, 1]),
        "v2": normal(2, 6, 4),
    }  # fmt: skip
    return model(nodes, {"x": [1, 3, 9, 8]}, constants)


def _quantized(proto: onnx.ModelProto, folder: Path):
    imported = import_onnx(save(proto, folder))
    fused = fuse(imported.module)
    batches = [{"x": normal(seed, 1, 3, 9, 8)} for seed in range(3)]
    qdq = passes.InsertQDQ(load_target("x86-64-vnni"), calibrate(fused, batches))(fused)
    return qdq, imported.outputs


def test_computes_what_the_module_does(tmp_path: Path) -> None:
    qdq, outputs = _quantized(_every_operator(), tmp_path)
    exported = export_qdq(qdq, outputs, "net")
    assert {o.domain for o in exported.opset_import} <= STANDARD
    assert {n.domain for n in exported.graph.node} <= STANDARD
    assert [o.name for o in exported.graph.output] == list(outputs)
    inputs = {"x": normal(9, 1, 3, 9, 8)}
    (found,) = ReferenceEvaluator(exported).run(None, inputs)
    np.testing.assert_allclose(found, Interpreter(qdq).run(inputs)[0], atol=0.02)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("LogSoftmax", "x", "y", axis=1)],
        [node("Cast", "x", "i", to=onnx.TensorProto.INT64), node("Gather", "table i", "y")],
        [node("Div", "x two", "d"), node("Floor", "d", "f"), node("Add", "f x", "y")],
        [node("Mod", "x two", "y", fmod=1)],
        [node("ReduceProd", "x axes", "y", keepdims=1)],
    ],
    ids=lambda nodes: nodes[0].op_type,
)
def test_what_stays_in_float(nodes: list[onnx.NodeProto], tmp_path: Path) -> None:
    constants = {"two": np.float32(2), "table": normal(1, 9, 2), "axes": np.array([2])}
    read = {name for one in nodes for name in one.input}
    held = {name: array for name, array in constants.items() if name in read}
    imported = import_onnx(save(model(nodes, {"x": [1, 3, 4]}, held, opset=18), tmp_path))
    exported = export_qdq(imported.module, imported.outputs, "net")
    inputs = {"x": np.abs(normal(9, 1, 3, 4)) * 3}
    (found,) = ReferenceEvaluator(exported).run(None, inputs)
    np.testing.assert_allclose(found, Interpreter(imported.module).run(inputs)[0], atol=1e-6)


def test_can_be_compiled_again(tmp_path: Path) -> None:
    qdq, outputs = _quantized(_every_operator(), tmp_path)
    path = tmp_path / "model.qdq.onnx"
    assert save_qdq(qdq, outputs, "net", path) == "model.qdq.onnx"
    again = passes.NormalizeQDQ()(passes.FuseConvRelu()(passes.NormalizeQDQ()(import_onnx(path).module)))
    first, second = (passes.LowerToInteger(load_target("arm-cortex-a"))(m) for m in (qdq, again))
    assert [n["op"] for n in float_nodes(second)] == [n["op"] for n in float_nodes(first)]
    inputs = {"x": normal(10, 1, 3, 9, 8)}
    np.testing.assert_allclose(*(Interpreter(m).run(inputs)[0] for m in (first, second)), atol=1e-6)


def test_large_constants_lie_in_a_file_beside_the_model(tmp_path: Path) -> None:
    proto = model([node("MatMul", "x w", "y")], {"x": [1, 300]}, {"w": normal(1, 300, 200)})
    module = import_proto(proto, "net").module
    near, far = tmp_path / "near.onnx", tmp_path / "far.onnx"
    assert save_qdq(module, ["y"], "net", near) == "near.onnx"
    assert save_qdq(module, ["y"], "net", far, apart=300 * 200 * 4) == "far.onnx"
    assert {p.name for p in tmp_path.iterdir()} == {"near.onnx", "far.onnx", "far.bin"}
    assert far.stat().st_size < 1000
    x = {"x": normal(0, 1, 300)}
    (inside,), (beside,) = (ReferenceEvaluator(str(path)).run(None, x) for path in (near, far))
    np.testing.assert_array_equal(inside, beside)
    np.testing.assert_array_equal(*(Interpreter(import_onnx(p).module).run(x)[0] for p in (near, far)))


def test_bfloat16_is_a_cast_there_and_back(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w b", "c", "conv", pads=[1, 1, 1, 1]),
        node("MaxPool", "c", "m", "max", kernel_shape=[2, 2], strides=[2, 2]),
        node("Sigmoid", "m", "s", "gate"),
        node("Conv", "s v", "y", "second"),
    ]
    constants = {"w": normal(0, 5, 3, 3, 3, spread=0.3), "b": normal(1, 5), "v": normal(2, 4, 5, 1, 1)}
    imported = import_onnx(save(model(nodes, {"x": [1, 3, 8, 8]}, constants), tmp_path))
    fused, inputs = fuse(imported.module), {"x": normal(9, 1, 3, 8, 8)}
    pairs = dict.fromkeys(("conv", "second"), ("bfloat16", "bfloat16"))
    insert = passes.InsertQDQ(load_target("nvidia-hopper-fp8"), calibrate(fused, [inputs]), assignment=pairs)
    exported = export_qdq(insert(fused), imported.outputs, "net")
    kinds = [n.op_type for n in exported.graph.node]
    assert kinds.count("Cast") == 2 * 4 + 2  # four tensors, and the weights
    assert not any("Quantize" in k for k in kinds)
    (found,) = ReferenceEvaluator(exported).run(None, inputs)
    np.testing.assert_allclose(found, Interpreter(insert(fused)).run(inputs)[0], atol=1e-5)


def test_a_model_in_qdq_form_leaves_in_float_what_the_target_does_not_list(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "c", "conv"),
        node("Resize", "c - scales", "r", "resize", nearest_mode="floor"),
        node("Conv", "r v", "y", "second"),
    ]
    constants = {"w": normal(0, 5, 3, 3, 3), "v": normal(1, 5, 5, 1, 1), "scales": np.float32([1, 1, 2, 2])}
    qdq, outputs = _quantized(model(nodes, {"x": [1, 3, 9, 8]}, constants), tmp_path)
    assert save_qdq(qdq, outputs, "net", tmp_path / "net.qdq.onnx") == "net.qdq.onnx"
    again = import_onnx(tmp_path / "net.qdq.onnx").module
    left = {}
    for name in ("x86-64-vnni", "nvidia-hopper-fp8"):
        target = load_target(name)
        lowered = passes.LowerToInteger(target)(normalize(again, Job(target)).qdq)
        left[name] = {n["op"]: n["reason"] for n in float_nodes(lowered)}
    assert left["x86-64-vnni"] == {}
    assert left["nvidia-hopper-fp8"] == {
        "image.resize2d": "target nvidia-hopper-fp8 lists no operator resize"
    }


@pytest.mark.parametrize(
    "last",
    [
        *(node(op, "x", "y") for op in ("Tan", "Sinh", "Asinh", "Atan")),
        node("Gelu", "x", "y", approximate="tanh"),
        *(node(op, "x z", "y") for op in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")),
        node("Xor", "p p", "y"),
        *(node(op, "x", "y", axis=2, keepdims=0) for op in ("ArgMax", "ArgMin")),
        node("Trilu", "x k", "y", upper=0),
        node("Trilu", "x k", "y"),
        node("GatherElements", "x places", "y", axis=2),
        node("GatherND", "x places", "y", batch_dims=1),
        node("Tile", "x times", "y"),
    ],
    ids=lambda last: last.op_type,
)
def test_values_of_what_stays_in_float(last: onnx.NodeProto, tmp_path: Path) -> None:
    constants = {"z": np.float32(0.1), "k": np.int64(-1), "times": np.array([1, 2, 3])}
    constants["places"] = np.random.default_rng(0).integers(0, 3, (1, 3, 2))
    nodes = [node("Less", "x z", "p"), last] if "p" in last.input else [last]
    found = import_onnx(save(model(nodes, {"x": [1, 3, 4]}, constants, opset=20), tmp_path))
    x = {"x": normal(3, 1, 3, 4)}
    (wanted,) = Interpreter(found.module).run(x)
    (value,) = ReferenceEvaluator(export_qdq(found.module, found.outputs, "net")).run(None, x)
    np.testing.assert_allclose(value.astype(np.float64), wanted, rtol=1e-6, atol=1e-7)


def test_says_what_has_no_onnx_form(tmp_path: Path) -> None:
    nodes = [node("HardSwish", "x", "h", "swish"), node("GridSample", "h grid", "y", "sampled")]
    proto = model(nodes, {"x": [1, 2, 4, 4]}, {"grid": normal(0, 1, 3, 3, 2)})
    module = import_onnx(save(proto, tmp_path)).module
    with pytest.raises(NotExportable, match="grid_sample has no ONNX form"):
        export_qdq(module, ["y"], "net")
    assert "grid_sample " in save_qdq(module, ["y"], "net", tmp_path / "none.onnx")
    assert not (tmp_path / "none.onnx").exists()


def test_outputs_keep_their_names_where_inner_tensors_have_them(tmp_path: Path) -> None:
    """Two outputs, one of which stays in float and is named like its tensor."""
    nodes = [
        node("Conv", "x w", "c", "conv"),
        node("Softmax", "c", "scores", "scores", axis=1),
        node("Sigmoid", "c", "boxes", "boxes"),
    ]
    proto = model(nodes, {"x": [1, 3, 9, 8]}, {"w": normal(0, 4, 3, 1, 1)}, ["scores", "boxes"])
    qdq, outputs = _quantized(proto, tmp_path)
    exported = export_qdq(qdq, outputs, "two")
    assert [o.name for o in exported.graph.output] == ["scores", "boxes"]
    x = normal(5, 1, 3, 9, 8)
    for found, expected in zip(
        ReferenceEvaluator(exported).run(None, {"x": x}), Interpreter(qdq).run({"x": x}), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)
