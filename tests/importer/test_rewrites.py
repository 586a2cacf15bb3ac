"""What has no form in the passes is written with what has: the same values, by the operators wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import model, node, normal, save

from hwptq.errors import UnsupportedError
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx import check_import
from hwptq.frontends.onnx.importer import Model, import_onnx
from hwptq.ir.caches import Cache, Caches
from hwptq.ir.dataflow import bindings, op_name
from hwptq.passes.graph.find_caches import find_caches


def imported(proto: onnx.ModelProto, folder: Path, **inputs: np.ndarray) -> Model:
    """An imported model, which computes what another evaluator says of the file."""
    found = import_onnx(save(proto, folder))
    values = {n: inputs.get(n, normal(i, *s)) for i, (n, (s, _)) in enumerate(found.inputs.items())}
    row = found.check(values).row()
    assert row["difference"] is not None, row
    assert row["difference"] < 1e-5
    return found


def operators(found: Model) -> list[str]:
    return [name for _, value in bindings(found.module["main"]) if (name := op_name(value))]


# --- convolutions of signals ---


def test_a_network_of_signals_becomes_one_of_images(tmp_path: Path):
    """The height goes through what computes element by element: one reshape at each end."""
    nodes = [
        node("Conv", "x w0 b0", "a", "first", pads=[1, 2], strides=[2]),
        node("BatchNormalization", "a g h m v", "n", "norm"),
        node("Relu", "n", "b"),
        node("Conv", "b w1", "c", "depthwise", pads=[1, 1], group=4, dilations=[1]),
        node("Add", "c b", "d"),
        node("Mul", "d gain", "e"),
        node("MaxPool", "e", "f", "pool", kernel_shape=[2], strides=[2]),
        node("ConvTranspose", "f w2", "g1", "up", strides=[2], output_padding=[1]),
        node("AveragePool", "g1", "h1", "mean", kernel_shape=[3], count_include_pad=1, pads=[1, 1]),
        node("GlobalAveragePool", "h1", "y", "whole"),
    ]
    constants = {
        "w0": normal(0, 4, 3, 4), "b0": normal(1, 4), "w1": normal(2, 4, 1, 3), "w2": normal(3, 4, 2, 3),
        "g": normal(4, 4), "h": normal(5, 4), "m": normal(6, 4), "v": np.abs(normal(7, 4)) + 1,
        "gain": normal(8, 4, 1),
    }  # fmt: skip
    found = imported(model(nodes, {"x": ["N", 3, 17]}, constants), tmp_path)
    kinds = operators(found)
    assert kinds.count("reshape") == 2
    assert {"nn.conv2d", "nn.conv2d_transpose", "nn.max_pool2d", "nn.avg_pool2d"} <= set(kinds)
    assert not any("1d" in kind for kind in kinds)


def test_signals_that_others_read_lose_the_height_again(tmp_path: Path):
    nodes = [
        node("Conv", "x w", "a", "conv"),
        node("Softmax", "a", "p", axis=2),
        node("Transpose", "a", "t", perm=[0, 2, 1]),
        node("MatMul", "p t", "y", "product"),
    ]
    proto = model(nodes, {"x": ["N", 3, 9]}, {"w": normal(0, 4, 3, 3)}, ["y", "a"])
    kinds = operators(imported(proto, tmp_path))
    assert kinds.count("reshape") == 2
    assert kinds.count("nn.conv2d") == 1


# --- transposed convolutions ---


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("kernel", [[2, 3], [3, 1]], ids=str)
def test_automatic_padding_of_poolings(
    tmp_path: Path, op: str, mode: str, kernel: list[int], monkeypatch: pytest.MonkeyPatch
):
    """Strides that don't divide the image, and one that is larger than the window: there ONNX Runtime begins
    an AveragePool elsewhere than a MaxPool, so it is not asked.
    """
    monkeypatch.setattr(check_import, "by_runtime", lambda *_: None)
    pool = node(op, "x", "y", "pool", auto_pad=mode, kernel_shape=kernel, strides=[2, 4])
    imported(model([pool], {"x": ["N", 3, 7, 11]}, opset=19), tmp_path)


@pytest.mark.parametrize("mode", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("size", [[15, 13], [16, 16], [17, 17], [18, 18]], ids=str)
def test_transposed_convolutions_with_an_output_shape(tmp_path: Path, mode: str, size: list[int]):
    up = node("ConvTranspose", "x w", "y", "up", strides=[2, 2], output_shape=size, auto_pad=mode)
    found = imported(model([up], {"x": ["N", 3, 8, 8]}, {"w": normal(0, 3, 4, 3, 3)}), tmp_path)
    assert bindings(found.module["main"])[-1][0].ty.shape.values[2:] == size


def test_an_output_shape_out_of_reach_is_refused(tmp_path: Path):
    up = node("ConvTranspose", "x w", "y", "up", strides=[2, 2], output_shape=[30, 30])
    path = save(model([up], {"x": ["N", 3, 8, 8]}, {"w": normal(0, 3, 4, 3, 3)}), tmp_path)
    with pytest.raises(UnsupportedError, match=r"node 'up': .* reaches beyond its kernel; give it a Pad"):
        import_onnx(path)


# --- activations, constants, optional inputs ---


@pytest.mark.parametrize(
    ("slope", "kinds"),
    [
        (np.full((4, 1, 1), 0.25, np.float32), ["nn.leakyrelu"]),
        (normal(1, 4, 1, 1), ["nn.relu", "clip", "nn.conv2d", "add"]),
        (normal(1, 1, 5, 1), ["nn.prelu"]),
    ],
    ids=["one", "by channel", "by row"],
)
def test_parametric_relu(tmp_path: Path, slope: np.ndarray, kinds: list[str]):
    found = imported(model([node("PRelu", "x s", "y", "act")], {"x": ["N", 4, 5, 6]}, {"s": slope}), tmp_path)
    if kinds == ["nn.prelu"]:
        assert "nn.conv2d" not in operators(found)
    else:
        assert operators(found) == kinds


def test_infinite_constants_become_finite(tmp_path: Path):
    infinite = np.float32(-np.inf)
    nodes = [
        node("Greater", "x zero", "mask"),
        node("Where", "mask x low", "s"),
        node("Max", "s low", "m"),
        node("Softmax", "m", "y", axis=1),
    ]
    found = imported(model(nodes, {"x": ["N", 7]}, {"low": infinite, "zero": np.float32(0)}), tmp_path)
    seen: list[np.ndarray] = []
    Interpreter(found.module).run({"x": normal(0, 1, 7)}, lambda *tensor: seen.append(tensor[-1]))
    assert all(np.isfinite(values).all() for values in seen)


def test_empty_inputs_are_missing_ones(tmp_path: Path):
    empty = np.zeros(0, np.float32)
    nodes = [
        node("Resize", "x roi scales sizes", "r", mode="nearest"),
        node("Concat", "r nothing", "y", axis=1),
    ]
    constants = {
        "roi": empty, "scales": empty, "sizes": np.array([1, 2, 6, 8]),
        "nothing": np.zeros((1, 0, 6, 8), np.float32),
    }  # fmt: skip
    found = imported(model(nodes, {"x": ["N", 2, 3, 4]}, constants, opset=11), tmp_path)
    assert operators(found) == ["image.resize2d"]


@pytest.mark.parametrize(("key", "values"), [("scales", [3.0, 2.0]), ("sizes", [8, 9])])
def test_resizing_some_axes(tmp_path: Path, key: str, values: list[float]):
    inputs = "x - factors" if key == "scales" else "x - - factors"
    resize = node("Resize", inputs, "y", axes=[3, 2] if key == "scales" else [2, 3])
    factors = np.array(values, np.float32 if key == "scales" else np.int64)
    imported(model([resize], {"x": ["N", 2, 4, 3]}, {"factors": factors}, opset=18), tmp_path)


@pytest.mark.parametrize(
    ("op", "indices", "updates", "attributes"),
    [
        ("ScatterND", [[0, 1], [0, -1]], (2, 4), {}),
        ("ScatterND", [[[0]]], (1, 1, 3, 4), {}),
        ("ScatterElements", [[[2, 0, 1, 1]]], (1, 1, 4), {"axis": 1}),
        ("ScatterElements", [[[0, -1], [3, 1]]], (1, 2, 2), {"axis": 2}),
    ],
)
def test_scattering_to_known_places(
    tmp_path: Path, op: str, indices: list[Any], updates: tuple[int, ...], attributes: dict[str, int]
):
    inputs = {"x": [1, 3, 4], "u": updates}
    imported(model([node(op, "x i u", "y", "put", **attributes)], inputs, {"i": np.array(indices)}), tmp_path)


def test_a_number_where_a_mask_is_set(tmp_path: Path):
    """x[mask] = -7, as torch.export writes it: places that are computed, and as many numbers."""
    nodes = [
        node("Less", "x zero", "mask"),
        node("NonZero", "mask", "found"),
        node("Transpose", "found", "places", perm=[1, 0]),
        node("Cast", "mask", "ones", to=TensorProto.INT64),
        node("Reshape", "ones flat", "vector"),
        node("ReduceSum", "vector", "count", keepdims=1),
        node("Expand", "number count", "numbers"),
        node("ScatterND", "x places numbers", "y", "put"),
    ]
    constants = {"zero": np.float32(0), "flat": np.array([-1]), "number": np.float32(-7)}
    found = imported(model(nodes, {"x": [1, 3, 4]}, constants), tmp_path)
    assert "where" in operators(found)


@pytest.mark.parametrize(
    ("nodes", "updates"),
    [
        ([node("ScatterElements", "x i u", "y", "put", axis=1)], [1, 1, 4]),
        ([node("Transpose", "x", "xt", perm=[1, 0, 2]), node("ScatterND", "xt i u", "yt", "put"),
          node("Transpose", "yt", "y", perm=[1, 0, 2])], [1, 1, 4]),
    ],
    ids=["elements", "transposed"],
)  # fmt: skip
def test_one_row_at_a_computed_place_is_a_cache(tmp_path: Path, nodes: list[Any], updates: list[int]):
    """The place is the sign of another input: -1 counts from the end."""
    shape = np.array(updates if nodes[0].op_type == "ScatterElements" else [1, 1])
    place = [
        node("Sign", "p", "sign"), node("Cast", "sign", "at", to=TensorProto.INT64),
        node("Expand", "at shape", "i"),
    ]  # fmt: skip
    inputs = {"x": [1, 3, 4], "u": updates, "p": [1, 1]}
    proto = model([*place, *nodes], inputs, {"shape": shape})
    found = imported(proto, tmp_path)
    assert find_caches(found.module["main"]) == Caches((Cache(0, 0),), None, 3)


@pytest.mark.parametrize("reduction", ["add", "mul", "min", "max"])
def test_a_reduction_where_a_mask_is_set_is_refused(tmp_path: Path, reduction: str):
    """It is no number that takes the place of others, as without one."""
    nodes = [
        node("Greater", "x zero", "mask"),
        node("NonZero", "mask", "found"),
        node("Transpose", "found", "places", perm=[1, 0]),
        node("Gather", "places first", "along", axis=1),
        node("Shape", "along", "count"),
        node("Expand", "number count", "updates"),
        node("ScatterND", "x places updates", "y", "fill", reduction=reduction),
    ]
    constants = {"zero": np.float32(0), "first": np.array(0), "number": np.float32(3)}
    proto = model(nodes, {"x": ["N", 4, 3]}, constants, opset=18)
    with pytest.raises(UnsupportedError, match=r"'fill': ScatterND has code only .* without a reduction"):
        import_onnx(save(proto, tmp_path))


@pytest.mark.parametrize("opset", [10, 16])
@pytest.mark.parametrize("samples", [0, 2])
@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_regions_by_means(tmp_path: Path, opset: int, samples: int, scale: float):
    """In half pixels from opset 16 on; one of the regions reaches out of the image."""
    regions = np.array([[0, 0, 4, 4], [1, 1, 6, 5], [2, 2, 3, 7.5], [-6, -5, 30, 4]], np.float32)
    size = dict(output_height=2, output_width=3, sampling_ratio=samples, spatial_scale=scale)
    align = node("RoiAlign", "x regions images", "y", "align", **size)
    constants = {"regions": regions, "images": np.zeros(4, np.int64)}
    imported(model([align], {"x": ["N", 2, 8, 8]}, constants, opset=opset), tmp_path)
    align.attribute.append(helper.make_attribute("mode", "max"))
    with pytest.raises(UnsupportedError, match=r"node 'align' \(RoiAlign\): mode 'max' is not supported"):
        import_onnx(save(model([align], {"x": ["N", 2, 8, 8]}, constants, opset=opset), tmp_path))


def test_scattering_to_computed_places_is_refused(tmp_path: Path):
    nodes = [node("Cast", "x", "i", to=TensorProto.INT64), node("ScatterElements", "x i x", "y", "put")]
    with pytest.raises(UnsupportedError, match=r"node 'put': ScatterElements has code only for indices that"):
        import_onnx(save(model(nodes, {"x": [3, 4]}), tmp_path))


# --- functions and branches ---


@pytest.mark.parametrize(
    ("equation", "shapes", "products"),
    [
        ("bij,jhd->bhid", [(1, 6, 5), (5, 2, 4)], 1),
        ("bhid,bhjd->bhij", [(1, 2, 6, 4), (1, 2, 5, 4)], 1),
        ("bihd , bjhd", [(1, 6, 2, 4), (1, 5, 2, 4)], 1),
        ("jd,bid->bij", [(7, 4), (1, 6, 4)], 1),
        ("...ij,...jk", [(1, 2, 6, 4), (1, 2, 4, 3)], 1),
        ("bchw,cg->bghw", [(1, 4, 3, 5), (4, 6)], 1),
        ("bik,bkj,bjl->bli", [(1, 3, 4), (1, 4, 5), (1, 5, 2)], 2),
        ("bij,bik->bjk", [(1, 6, 4), (1, 6, 3)], 1),
        ("bi,j->bij", [(1, 6), (3,)], 0),
        ("bijk->bki", [(1, 6, 4, 3)], 0),
        ("bijk,j->bk", [(1, 6, 4, 3), (4,)], 1),
    ],
    ids=str,
)
def test_einsum_is_products_of_matrices(
    tmp_path: Path, equation: str, shapes: list[tuple[int, ...]], products: int
):
    """Operands without a batch are weights."""
    names = [f"x{i}" for i in range(len(shapes))]
    inputs = {n: s for n, s in zip(names, shapes, strict=True) if s[0] == 1}
    constants = {n: normal(9, *s) for n, s in zip(names, shapes, strict=True) if s[0] != 1}
    found = imported(
        model([node("Einsum", " ".join(names), "y", "e", equation=equation)], inputs, constants), tmp_path
    )
    kinds = operators(found)
    assert kinds.count("matmul") == products
    assert "call_tir" not in kinds


@pytest.mark.parametrize("size", [1, 3, 4])
def test_responses_of_neighbouring_channels(tmp_path: Path, size: int):
    response = node("LRN", "x", "y", "response", size=size, alpha=0.5, beta=0.7, bias=1.5)
    found = imported(model([response], {"x": [1, 6, 3, 4]}), tmp_path)
    assert "call_tir" not in operators(found)


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_one_hot_has_the_dtype_of_its_values(tmp_path: Path, axis: int):
    """An index may count from behind; one beyond the places is none."""
    nodes = [node("Cast", "x", "i", to=TensorProto.INT64), node("OneHot", "i n v", "y", "hot", axis=axis)]
    constants = {"n": np.array(4), "v": np.float32([-1, 2])}
    found = imported(model(nodes, {"x": [1, 6]}, constants), tmp_path, x=np.float32([[0, 3, -1, -4, 4, -5]]))
    (value,) = Interpreter(found.module).run({"x": np.float32([[0, 3, -1, -4, 4, -5]])})
    assert value.dtype == np.float32


def test_operators_that_onnx_defines_by_others(tmp_path: Path):
    nodes = [
        node("RMSNormalization", "x g", "n", "norm"),
        node("Attention", "n n n", "a", "attention", q_num_heads=4, kv_num_heads=4),
        node("Celu", "a", "y", "celu", alpha=0.7),
    ]
    proto = model(nodes, {"x": ["N", 6, 16]}, {"g": normal(1, 16)}, opset=23)
    proto.ir_version = 11
    found = imported(proto, tmp_path)
    assert {"matmul", "nn.softmax"} <= set(operators(found))
    named = {str(var.name) for var, _ in bindings(found.module["main"])}
    assert any(name.startswith("attention") for name in named)


def test_functions_of_the_file(tmp_path: Path):
    body = [node("Relu", "a", "b"), node("Mul", "b c", "d")]
    function = helper.make_function("own", "Scaled", ["a", "c"], ["d"], body, [helper.make_opsetid("", 17)])
    call = node("Scaled", "x g", "y", "call")
    call.domain = "own"
    proto = model([node("Mul", "x g", "y")], {"x": ["N", 4]}, {"g": normal(0, 4)})
    proto.opset_import.append(helper.make_opsetid("own", 1))
    proto.functions.append(function)
    proto.graph.node[0].CopyFrom(call)
    assert operators(imported(proto, tmp_path)) == ["nn.relu", "multiply"]


@pytest.mark.parametrize(("wanted", "kind"), [(4, "nn.relu"), (5, "negative")])
def test_a_branch_whose_condition_follows_from_shapes(tmp_path: Path, wanted: int, kind: str):
    value = helper.make_tensor_value_info("t", TensorProto.FLOAT, None)
    inner = numpy_helper.from_array(np.float32(3), "k")
    branches = {
        "then_branch": helper.make_graph(
            [node("Relu", "a", "r"), node("Mul", "r k", "t")], "then", [], [value], [inner]
        ),
        "else_branch": helper.make_graph([node("Neg", "a", "t")], "else", [], [value]),
    }
    nodes = [
        node("MatMul", "x w", "a"),
        node("Shape", "a", "s"),
        node("Gather", "s one", "d"),
        node("Equal", "d n", "c"),
        node("If", "c", "b", "choice", **branches),
        node("MatMul", "b v", "y"),
    ]
    constants = {"w": normal(0, 3, 4), "v": normal(1, 4, 2), "one": np.int64(1), "n": np.int64(wanted)}
    assert kind in operators(imported(model(nodes, {"x": ["N", 3]}, constants), tmp_path))


def test_old_opsets(tmp_path: Path):
    nodes = [
        node("Upsample", "x", "u", "up", mode="nearest", scales=[1.0, 1.0, 2.0, 3.0]),
        node("BatchNormalization", "u g g g v", "y", "norm", spatial=1),
    ]
    constants = {"g": normal(0, 4), "v": np.abs(normal(1, 4))}
    proto: Any = model(nodes, {"x": ["N", 4, 3, 2]}, constants, opset=7)
    assert "image.resize2d" in operators(imported(proto, tmp_path))


@pytest.mark.parametrize(("time", "batch"), [(0, 1), (1, 0), (2, 1)])
def test_sequences_are_reversed_as_far_as_they_go(time: int, batch: int, tmp_path: Path) -> None:
    shape = [5, 5, 5]
    shape[batch] = 4
    reverse = node("ReverseSequence", "x n", "y", time_axis=time, batch_axis=batch)
    found = imported(model([reverse], {"x": shape}, {"n": np.array([1, 4, 5, 3])}), tmp_path)
    assert "gather_elements" in operators(found)


@pytest.mark.parametrize(
    "attributes",
    [{"starts": [1, 0], "ends": [3, -1], "axes": [1, 3]}, {"starts": [0, 1], "ends": [1, 9]}],
)
def test_slices_before_opset_10(attributes: dict[str, list[int]], tmp_path: Path) -> None:
    proto = model([node("Slice", "x", "y", **attributes)], {"x": [2, 3, 4, 6]}, opset=9)
    imported(proto, tmp_path)


def test_the_logarithm_of_an_integer_is_finite(tmp_path: Path):
    """Also of what is computed from it; of other numbers it is what it was."""
    nodes = [
        node("Cast", "x", "i", to=TensorProto.INT64), node("Cast", "i", "f", to=TensorProto.FLOAT),
        node("Div", "f n", "d"), node("Log", "d", "a", "bucket"), node("Log", "x", "b", "plain"),
        node("Concat", "a b", "y", axis=0),
    ]  # fmt: skip
    x = np.float32([[0, -3, 8]])
    module = import_onnx(save(model(nodes, {"x": [1, 3]}, {"n": np.float32(4)}), tmp_path)).module
    (y,) = Interpreter(module).run({"x": x})
    assert np.isfinite(y[0]).all()
    np.testing.assert_allclose(y[0, 2], np.log(2), rtol=1e-6)
    assert y[1, 0] == -np.inf


@pytest.mark.parametrize("known", [True, False])
def test_a_known_choice_and_a_sum_with_nothing_are_the_operand(tmp_path: Path, known: bool):
    """Where that operand is not broadcast, and the condition is one of all."""
    nodes = [
        node("Add", "zeros x", "a"), node("Where", "all a b" if known else "all b a", "c"),
        node("Where", "some c b", "d"), node("Add", "d wide", "y"),
    ]  # fmt: skip
    constants = {
        "zeros": np.zeros((1, 1), np.float32), "all": np.full((3, 1), known), "b": normal(1, 3, 4),
        "some": np.array([True, False, True, True]), "wide": np.zeros((2, 1, 1), np.float32),
    }  # fmt: skip
    found = imported(model(nodes, {"x": [1, 3, 4]}, constants), tmp_path)
    assert operators(found) == ["where", "add"]


def test_attention_of_the_standard_is_a_softmax_between_products(tmp_path: Path):
    """Nothing but them: no mask is added, and no row is guarded."""
    attention = node("Attention", "q k v", "y", "attention", q_num_heads=2, kv_num_heads=2)
    shapes = {name: [1, 5, 8] for name in "qkv"}
    kinds = operators(imported(model([attention], shapes, opset=23), tmp_path))
    assert not {"where", "add"} & set(kinds)
    assert kinds.count("matmul") == 2
