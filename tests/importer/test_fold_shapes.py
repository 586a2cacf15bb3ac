"""The arithmetic of shapes becomes constants; what the model computes, and its weights, stay."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper
from onnx_models import expected, model, node, normal

from hwptq.frontends.onnx.fold_shapes import fold_shapes

INTS = {"zero": np.array(0), "one": np.array([1]), "two": np.array([2]), "all": np.array([-1])}
FLATTEN = [  # x.reshape(shape(x)[0], -1), as exporters write it
    node("Shape", "x", "shape", "shape"),
    node("Gather", "shape zero", "batch", "batch", axis=0),
    node("Unsqueeze", "batch axes", "batch_1", "unsqueeze"),
    node("Concat", "batch_1 all", "target", "target", axis=0),
    node("Reshape", "x target", "flat", "flatten"),
]
AXES = {"axes": np.array([0])}


def kinds(proto: onnx.ModelProto) -> list[str]:
    return [n.op_type for n in proto.graph.node]


def same(before: onnx.ModelProto, after: onnx.ModelProto, **values: np.ndarray) -> None:
    for a, b in zip(expected(before, values), expected(after, values), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_reshape_that_reads_its_shape():
    proto = model([*FLATTEN, node("Relu", "flat", "y", "relu")], {"x": ["N", 3, "H", 5]}, INTS | AXES)
    folded = fold_shapes(proto, {"x": (1, 3, 4, 5)})
    assert kinds(folded) == ["Reshape", "Relu"]
    assert [n.name for n in folded.graph.node] == ["flatten", "relu"]
    same(proto, folded, x=normal(0, 1, 3, 4, 5))
    assert kinds(proto) == [n.op_type for n in [*FLATTEN, node("Relu", "flat", "y")]]  # the argument is kept


def test_shapes_behind_a_folded_reshape():
    nodes = [
        *FLATTEN,
        node("Shape", "flat", "flat_shape", "flat_shape"),
        node("Mul", "flat_shape one", "same_shape", "mul"),
        node("Reshape", "flat same_shape", "y", "again"),
    ]
    proto = model(nodes, {"x": ["N", "C", "H", "W"]}, INTS | AXES)
    folded = fold_shapes(proto, {"x": (2, 3, 4, 5)})
    assert kinds(folded) == ["Reshape", "Reshape"]
    same(proto, folded, x=normal(0, 2, 3, 4, 5))


def test_weights_keep_their_dequantization_and_large_ones_their_node():
    weights = {
        "w": np.ones((4, 3), np.int8),
        "s": np.float32(0.5),
        "z": np.int8(0),
        "big": normal(0, 300, 300),
    }
    nodes = [
        node("DequantizeLinear", "w s z", "w_f", "dq"),
        node("MatMul", "x w_f", "product", "dense"),
        node("Transpose", "big", "big_t", "transpose"),
        node("ReduceMax", "big_t", "most", "most", keepdims=0),
        node("Add", "product most", "y", "add"),
    ]
    proto = model(nodes, {"x": ["N", 4]}, weights)
    assert kinds(fold_shapes(proto, {"x": (1, 4)})) == kinds(proto)


def test_a_constant_output_is_still_computed():
    proto = model(
        [node("Shape", "x", "y", "shape"), node("Relu", "x", "z", "relu")], {"x": [2, 3]}, outputs="yz"
    )
    assert kinds(fold_shapes(proto, {"x": (2, 3)})) == ["Shape", "Relu"]


def test_what_the_evaluator_does_not_know_stays():
    proto = model([node("NoSuch", "one", "a", "unknown"), node("Add", "x a", "y", "add")], {"x": [1]}, INTS)
    assert kinds(fold_shapes(proto, {"x": (1,)})) == ["NoSuch", "Add"]
    assert numpy_helper.to_array(proto.graph.initializer[0]).size == 1
