"""TopK of any number of values: the order that numpy's stable sort gives, of every dtype, on every device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx_models import expected, model, node, normal, save

import hwptq
from hwptq.errors import UnsupportedError
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_onnx, import_proto

LEAST = np.finfo(np.float32).min
ODD = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, float(LEAST), -float(LEAST), 1e-45, -1e-45]
KINDS = {
    "float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "int32": TensorProto.INT32,
    "int8": TensorProto.INT8, "uint8": TensorProto.UINT8,
}  # fmt: skip


def top_k(shape: list[int], k: int, axis: int, largest: bool, dtype: str = "float32") -> onnx.ModelProto:
    best = node("TopK", "x k", "values places", "best", axis=axis, largest=int(largest))
    proto = model([best], {"x": shape}, {"k": np.array([k])}, ["values"], dtype=KINDS[dtype])
    proto.graph.output.append(helper.make_tensor_value_info("places", TensorProto.INT64, None))
    return proto


def order(x: np.ndarray, k: int, axis: int, largest: bool) -> np.ndarray:
    """Places of the first k, of equal ones the first."""
    ranks = np.unique(x, return_inverse=True)[1].reshape(x.shape)
    return np.take(np.argsort(-ranks if largest else ranks, axis=axis, kind="stable"), range(k), axis)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.integers(1, 7), min_size=1, max_size=3), data=st.data(), largest=st.booleans(),
    dtype=st.sampled_from(list(KINDS)),
)  # fmt: skip
def test_the_order_of_a_stable_sort(
    shape: list[int], data: st.DataObject, largest: bool, dtype: str
) -> None:  # fmt: skip
    """Zeros of both signs are equal; infinities and subnormal numbers have their places."""
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    k = data.draw(st.integers(1, shape[axis]))
    kind = np.dtype(dtype)
    few = st.sampled_from(ODD) if kind.kind == "f" else st.sampled_from([np.iinfo(kind).min, 0, 1, 2, 77])
    size = int(np.prod(shape))
    x = np.array(data.draw(st.lists(few, min_size=size, max_size=size)), kind).reshape(shape)
    module = import_proto(top_k(shape, k, axis, largest, dtype), "model").module
    values, places = Interpreter(module).run({"x": x})
    wanted = order(x, k, axis, largest)
    np.testing.assert_array_equal(places, wanted)
    np.testing.assert_array_equal(values, np.take_along_axis(x, wanted, axis))


@pytest.mark.parametrize("largest", [True, False])
def test_many_as_by_onnx(tmp_path: Path, largest: bool) -> None:
    """1,000 of 8,400, the places of a detector; the check of the import agrees."""
    proto, x = top_k([1, 8400], 1000, 1, largest), normal(0, 1, 8400)
    found = import_onnx(save(proto, tmp_path))
    found.check({"x": x})
    for mine, theirs in zip(Interpreter(found.module).run({"x": x}), expected(proto, {"x": x}), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_nan_is_above_all_whatever_its_sign() -> None:
    x = np.float32([[1, np.nan, np.inf, -np.nan]])
    module = import_proto(top_k([1, 4], 4, 1, True), "model").module
    np.testing.assert_array_equal(Interpreter(module).run({"x": x})[1], [[1, 3, 2, 0]])


def test_a_k_that_is_no_constant_is_refused() -> None:
    nodes = [node("Cast", "x", "k", to=TensorProto.INT64), node("TopK", "y k", "values places", "best")]
    proto = model(nodes, {"x": [1], "y": [1, 4]}, outputs=["values"])
    with pytest.raises(UnsupportedError, match=r"node 'best' \(TopK\)"):
        import_proto(proto, "model")


def queries() -> onnx.ModelProto:
    """The end of a detector without suppression: 200 of 576 places by their score, and a head on those."""
    nodes = [
        node("Conv", "x w", "c", "conv", pads=[1, 1, 1, 1]), node("Relu", "c", "r", "relu"),
        node("Reshape", "r flat", "f", "rows"), node("MatMul", "f v", "s", "score"),
        node("Reshape", "s row", "scores", "row"), node("TopK", "scores k", "best places", "top", axis=1),
        node("Unsqueeze", "places last", "p", "places"), node("Expand", "p wide", "q", "wide"),
        node("GatherElements", "f q", "g", "gather", axis=1), node("MatMul", "g u", "y", "head"),
    ]  # fmt: skip
    constants = {
        "w": normal(0, 16, 3, 3, 3), "flat": np.array([1, 576, 16]), "v": normal(1, 16, 1),
        "row": np.array([1, 576]), "k": np.array([200]), "last": np.array([2]),
        "wide": np.array([1, 200, 16]), "u": normal(2, 16, 4),
    }  # fmt: skip
    return model(nodes, {"x": [1, 3, 24, 24]}, constants, ["y", "best"])


@pytest.mark.parametrize("target", ["x86-64-avx2", "arm-cortex-a", "riscv32-imc"])
def test_emitted_code(runnable: Callable[[str], str], target: str, tmp_path: Path) -> None:
    samples = [{"x": normal(9 + i, 1, 3, 24, 24)} for i in range(4)]
    found = hwptq.compile(save(queries(), tmp_path), runnable(target), samples, output=tmp_path / "out")
    assert found.report["bit_exact"]["mismatches"] == 0
    assert found.report["coverage"]["macs_quantized"] == found.report["coverage"]["macs_total"]
    assert [n["op"] for n in found.report["coverage"]["nodes_float"]] == ["order"]
    outputs = {o["name"]: o["sqnr_db"]["emitted"] for o in found.report["accuracy"]["outputs"]}
    assert outputs["best"] > 30  # the order of rows is another where scores are near each other
    again = hwptq.compile(found.folder / "model.qdq.onnx", target, samples, output=tmp_path / "again")
    for mine, theirs in zip(found.run_stream(samples), again.run_stream(samples), strict=True):
        for name in mine:
            np.testing.assert_array_equal(mine[name], theirs[name])
