"""ONNX files become Relax modules that compute the same, with a batch of 1 and the names of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import expected, model, node, normal, save
from tvm import relax

from hwptq.errors import InputError, UnsupportedError
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.model import Model
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.ir.dataflow import bindings, op_name
from hwptq.ir.provenance import origins
from hwptq.lowering.nearest import resized

WEIGHTS = {"w": normal(0, 4, 3, 3, 3), "b": normal(1, 4)}
CONV = node("Conv", "x w b", "y", "first/conv", pads=[1, 1, 1, 1])


def check(proto: onnx.ModelProto, folder: Path, bound: float = 1e-5, **inputs: np.ndarray) -> Model:
    """Import a model, and fail unless it computes what ONNX says."""
    imported = import_onnx(save(proto, folder))
    values = {n: inputs.get(n, normal(i, *s)) for i, (n, (s, _)) in enumerate(imported.inputs.items())}
    found = Interpreter(imported.module).run(values)
    for a, b in zip(found, expected(proto, values), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b.astype(np.float32), rtol=bound, atol=bound)
    return imported


def names(imported: Model) -> list[str]:
    """Labels of everything that is computed."""
    func = imported.module["main"]
    named = origins(func)
    return [named[var].label for var, value in bindings(func) if not isinstance(value, relax.Var)]


@pytest.mark.parametrize("batch", ["N", None, 0, 1], ids=str)
def test_the_batch_axis_is_bound_to_one(tmp_path: Path, batch: Any):
    imported = check(model([CONV], {"x": [batch, 3, 5, 6]}, WEIGHTS), tmp_path)
    assert imported.inputs == {"x": ((1, 3, 5, 6), "float32")}
    assert imported.outputs == ("y",)
    assert imported.name == "model"


def test_several_inputs_and_outputs_keep_their_order(tmp_path: Path):
    nodes = [node("Add", "b a", "sum"), node("Mul", "a b", "product")]
    proto = model(nodes, {"b": ["N", 4], "a": ["N", 4]}, outputs=["product", "sum"])
    imported = check(proto, tmp_path)
    assert list(imported.inputs) == ["b", "a"]
    assert imported.outputs == ("product", "sum")


@pytest.mark.parametrize("attributes", [{}, {"p": 1}, {"p": 2, "axis": 1}])
def test_lp_normalization(tmp_path: Path, attributes: dict[str, int]):
    proto = model([node("LpNormalization", "x", "y", **attributes)], {"x": ["N", 3, 4]})
    check(proto, tmp_path, x=np.abs(normal(0, 1, 3, 4)))  # onnx' own 1-norm forgets the absolute value


@pytest.mark.parametrize("opset", [10, 13])
def test_dropout_is_gone(tmp_path: Path, opset: int):
    nodes = [node("Relu", "x", "y"), node("Dropout", "y", "z"), node("Neg", "z", "out")]
    imported = check(model(nodes, {"x": ["N", 3, 4]}, opset=opset), tmp_path)
    operators = [op_name(value) for _, value in bindings(imported.module["main"])]
    assert [name for name in operators if name] == ["nn.relu", "negative"]


def test_float16_is_widened(tmp_path: Path):
    half = {k: v.astype(np.float16) for k, v in WEIGHTS.items()}
    two = numpy_helper.from_array(np.array(2, np.float16))
    nodes = [
        CONV,
        helper.make_node("Constant", [], ["two"], value=two),
        node("Mul", "y two", "z"),
        node("Cast", "z", "out", to=TensorProto.FLOAT16),
    ]
    proto = model(nodes, {"x": ["N", 3, 5, 6]}, half, dtype=TensorProto.FLOAT16)
    imported = import_onnx(save(proto, tmp_path))
    assert imported.inputs["x"] == ((1, 3, 5, 6), "float32")
    x = normal(5, 1, 3, 5, 6)
    (found,) = Interpreter(imported.module).run({"x": x})
    wide = {k: v.astype(np.float32) for k, v in half.items()}
    (exact,) = expected(model([CONV], {"x": ["N", 3, 5, 6]}, wide), {"x": x})
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 2 * exact, rtol=1e-5, atol=1e-5)


def test_opset_9(tmp_path: Path):
    """Attributes that later became inputs: the bounds of Clip, the widths of Pad, the axes of Squeeze."""
    nodes = [
        CONV,
        node("Clip", "y", "clipped", min=0.0, max=6.0),
        node("Pad", "clipped", "padded", pads=[0, 0, 1, 0, 0, 0, 0, 2], value=0.5),
        node("GlobalAveragePool", "padded", "mean"),
        node("Squeeze", "mean", "out", axes=[2, 3]),
    ]
    check(model(nodes, {"x": ["N", 3, 5, 6]}, WEIGHTS, opset=9), tmp_path)


def test_opset_6_is_refused(tmp_path: Path):
    path = save(model([CONV], {"x": ["N", 3, 5, 6]}, WEIGHTS, opset=6), tmp_path)
    with pytest.raises(UnsupportedError, match="opset 6; export the model with opset 7 or newer"):
        import_onnx(path)


@pytest.mark.parametrize(
    ("bounds", "constants"),
    [("low high", {"low": -0.5, "high": 6.0}), ("low", {"low": 0.0}), ("- high", {"high": 1.0}), ("", {})],
)
def test_clip_with_and_without_bounds(tmp_path: Path, bounds: str, constants: dict[str, float]):
    arrays = {k: np.array(v, np.float32) for k, v in constants.items()}
    check(model([node("Clip", f"x {bounds}", "y")], {"x": ["N", 7]}, arrays), tmp_path)


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (node("NonZero", "x", "y", "places"), "'places' .NonZero.: the size of its result depends on values"),
        (node("NonMaxSuppression", "b s", "y", "nms"), "'nms' .NonMax.*: the size of its result depends on"),
        (node("Col2Im", "x size block", "y", "folded"), "'folded' .Col2Im.: this operator is not known"),
    ],
    ids=lambda last: getattr(last, "op_type", ""),
)
def test_operators_without_code_are_refused_by_name(tmp_path: Path, last: onnx.NodeProto, said: str):
    nodes = [node("Reshape", "x boxes", "b"), node("Reshape", "x scores", "s"), last]
    constants = {"boxes": [1, 3, 4], "scores": [1, 1, 12], "size": [2, 3], "block": [1, 2]}
    arrays = {name: np.array(value) for name, value in constants.items()}
    proto = model(nodes, {"x": [1, 2, 6]}, arrays, opset=18)
    proto.graph.output[0].type.tensor_type.elem_type = 1 if last.op_type == "Col2Im" else 7
    with pytest.raises(UnsupportedError, match=said):
        import_onnx(save(proto, tmp_path))


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("attributes", [{}, {"strides": [2, 3]}, {"dilations": [2, 1]}], ids=str)
def test_auto_pad_becomes_part_of_the_convolution(tmp_path: Path, mode: str, attributes: dict[str, Any]):
    conv = node("Conv", "x w b", "y", "conv", auto_pad=mode, **attributes)
    imported = check(model([conv], {"x": ["N", 3, 6, 7]}, {**WEIGHTS, "w": normal(0, 4, 3, 3, 2)}), tmp_path)
    assert names(imported) == ["conv", "conv#1"]


@pytest.mark.parametrize("inputs", ["x", "x x", "x a x"])
def test_sum_is_additions(tmp_path: Path, inputs: str):
    imported = check(model([node("Sum", inputs, "y")], {"x": ["N", 7]}, {"a": normal(1, 7)}), tmp_path)
    operators = [op_name(value) for _, value in bindings(imported.module["main"])]
    assert operators.count("add") == len(inputs.split()) - 1
    assert "stack" not in operators


@pytest.mark.parametrize("place", [0, 2, -1])
@pytest.mark.parametrize("axis", [1, -1])
def test_one_known_place_is_a_slice(tmp_path: Path, place: int, axis: int):
    gather = node("Gather", "x i", "y", "token", axis=axis)
    imported = check(model([gather], {"x": ["N", 3, 5]}, {"i": np.array(place, np.int64)}), tmp_path)
    operators = {op_name(value) for _, value in bindings(imported.module["main"])}
    assert operators - {""} == {"strided_slice", "squeeze"}
    assert "token" in names(imported)


@pytest.mark.parametrize("attributes", [{}, {"transB": 1}, {"alpha": 0.5, "beta": 2.0}])
def test_gemm(tmp_path: Path, attributes: dict[str, Any]):
    shape = (5, 3) if "transB" in attributes else (3, 5)
    constants = {"w": normal(1, *shape), "b": normal(2, 5)}
    check(model([node("Gemm", "x w b", "y", **attributes)], {"x": ["N", 3]}, constants), tmp_path)


def test_nodes_keep_their_names(tmp_path: Path):
    nodes = [CONV, node("Relu", "y", "z"), node("MaxPool", "z", "out", "pool", kernel_shape=[2, 2])]
    found = names(check(model(nodes, {"x": ["N", 3, 5, 6]}, WEIGHTS), tmp_path))
    assert [n for n in found if "#" not in n] == ["first/conv", "z", "pool"]


@pytest.mark.parametrize("axis", [-1, 1])
def test_layer_norm_keeps_its_name(tmp_path: Path, axis: int):
    shape = (5, 6)[axis:] if axis < 0 else (5, 6)
    constants = {"g": normal(0, *shape), "b": normal(1, *shape)}
    proto = model(
        [node("LayerNormalization", "x g b", "y", "norm", axis=axis)], {"x": ["N", 5, 6]}, constants
    )
    assert names(check(proto, tmp_path)) == ["norm"]


def test_names_need_not_be_identifiers_nor_unique(tmp_path: Path):
    nodes = [node("Relu", "in:0", "a/b:0", "same name"), node("Abs", "a/b:0", "größe", "same name")]
    imported = check(model(nodes, {"in:0": ["N", 4]}), tmp_path)
    assert list(imported.inputs) == ["in:0"]
    assert imported.outputs == ("größe",)
    assert len(set(names(imported))) == len(names(imported))


def test_weights_may_be_among_the_inputs(tmp_path: Path):
    """As files of IR version 3 list them."""
    proto = model([CONV], {"x": ["N", 3, 5, 6]}, WEIGHTS)
    for name, value in WEIGHTS.items():
        proto.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape))
    assert list(check(proto, tmp_path).inputs) == ["x"]


def test_a_scalar_input(tmp_path: Path):
    proto = model([node("Mul", "x s", "y")], {"x": ["N", 4], "s": []})
    assert check(proto, tmp_path).inputs["s"] == ((), "float32")


def test_no_such_file(tmp_path: Path):
    with pytest.raises(InputError, match="no such file; give the path of an ONNX model"):
        import_onnx(tmp_path / "missing.onnx")


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_file(tmp_path: Path, keep: float):
    path = save(model([CONV], {"x": ["N", 3, 5, 6]}, WEIGHTS), tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep > 1 else keep * len(data))])
    with pytest.raises(InputError, match="not a readable ONNX model: ") as caught:
        import_onnx(path)
    assert "\n" not in str(caught.value)


def test_an_unsupported_operator(tmp_path: Path):
    path = save(model([node("Det", "x", "y")], {"x": ["N", 4, 4]}), tmp_path)
    with pytest.raises(UnsupportedError, match="Det") as caught:
        import_onnx(path)
    assert "\n" not in str(caught.value)


def test_an_operator_of_another_domain(tmp_path: Path):
    proto = model([node("Relu", "x", "y")], {"x": ["N", 4]})
    proto.graph.node[0].domain = "com.example"
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(UnsupportedError, match=r"\(Relu\): this operator of domain com\.example"):
        import_onnx(save(proto, tmp_path))


def test_control_flow(tmp_path: Path):
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    branches = {
        f"{name}_branch": helper.make_graph([node(op, "x", "y")], name, [], [value])
        for name, op in (("then", "Relu"), ("else", "Abs"))
    }
    nodes = [node("ReduceMax", "x", "m", keepdims=0), node("Cast", "m", "c", to=TensorProto.BOOL)]
    proto = model([*nodes, node("If", "c", "out", **branches)], {"x": [1]})
    with pytest.raises(UnsupportedError, match="its condition is computed"):
        import_onnx(save(proto, tmp_path))
    proto.graph.node.insert(0, node("NonZero", "x", "places"))
    with pytest.raises(
        UnsupportedError, match=r"'places' \(NonZero\): the size of its result depends on values"
    ):
        import_onnx(save(proto, tmp_path))


@pytest.mark.parametrize("sizes", [(10, 12), (7, 3), (5, 20)])
@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_resize_to_the_nearest_pixel(tmp_path: Path, rounding: str, sizes: tuple[int, int]):
    modes = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    nodes = [
        node("Resize", "x - - s", m, coordinate_transformation_mode=m, nearest_mode=rounding) for m in modes
    ]
    sizes_of = {"s": np.array([1, 2, *sizes], np.int64)}
    imported = check(model(nodes, {"x": ["N", 2, 5, 6]}, sizes_of, modes), tmp_path, 0)
    values = dict(bindings(imported.module["main"]))
    x = np.arange(60, dtype=np.float32).reshape(1, 2, 5, 6)
    by_tables = [resized(v, x) for v in values.values() if op_name(v) == "image.resize2d"]
    for a, b in zip(by_tables, Interpreter(imported.module).run({"x": x}), strict=True):
        np.testing.assert_array_equal(a, b)


def test_upsampling_by_scales(tmp_path: Path):
    """Of opset 9; Resize of opset 10 has the same inputs."""
    proto = model(
        [node("Upsample", "x s", "y", mode="nearest")], {"x": ["N", 2, 3, 4]},
        {"s": np.float32([1, 1, 2, 3])}, opset=9,
    )  # fmt: skip
    x = normal(0, 1, 2, 3, 4)
    wanted = x.repeat(2, axis=2).repeat(3, axis=3)
    later = model(
        [node("Resize", "x s", "y")], {"x": ["N", 2, 3, 4]}, {"s": np.float32([1, 1, 2, 3])}, opset=10
    )
    for name, one in (("upsample", proto), ("resize", later)):
        (found,) = Interpreter(import_onnx(save(one, tmp_path, name)).module).run({"x": x})
        np.testing.assert_array_equal(found, wanted)


def test_a_scale_of_opset_10_that_gives_no_whole_pixels_is_refused(tmp_path: Path):
    scales = {"s": np.float32([1, 1, 2, 1.5])}
    proto = model([node("Resize", "x s", "y")], {"x": ["N", 2, 3, 7]}, scales, opset=10)
    with pytest.raises(UnsupportedError, match=r"by \[1.0, 1.0, 2.0, 1.5\] gives no whole numbers of pixels"):
        import_onnx(save(proto, tmp_path))


@pytest.mark.parametrize(
    ("opset", "sizes", "attributes"),
    [
        (11, None, {"axis": 1, "split": [1, 4, 3]}),
        (11, None, {"axis": -3}),
        (17, [4, 1, 3], {"axis": 1}),
        (18, None, {"axis": 1, "num_outputs": 3}),
    ],
    ids=str,
)
def test_split_becomes_slices(
    tmp_path: Path, opset: int, sizes: list[int] | None, attributes: dict[str, Any]
):
    parts = "a b c" if attributes.get("axis") != -3 else "a b"
    split = node("Split", "x" + (" sizes" if sizes else ""), parts, "cut", **attributes)
    constants = {"sizes": np.array(sizes)} if sizes else {}
    proto = model([split], {"x": ["N", 8, 5, 2]}, constants, outputs=parts.split(), opset=opset)
    imported = check(proto, tmp_path)
    found = [op_name(value) for _, value in bindings(imported.module["main"])]
    assert found[: len(parts.split())] == ["strided_slice"] * len(parts.split())
    assert names(imported)[:2] == ["cut", "cut:1"]


def test_split_into_one_part_is_the_whole(tmp_path: Path):
    """As torchvision's detectors take the images of a batch of one apart."""
    nodes = [node("Split", "x sizes", "part", "cut", axis=0), node("Squeeze", "part axis", "y", "image")]
    constants = {"sizes": np.array([1]), "axis": np.array([0])}
    check(model(nodes, {"x": [1, 8, 5, 2]}, constants), tmp_path)
