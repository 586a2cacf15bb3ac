"""CumSum has code of its own: the sums of numpy, for every axis, direction and dtype."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnx_models import model, node, save

from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.ir.dataflow import bindings, op_name


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3), data=st.data(),
    exclusive=st.booleans(), reverse=st.booleans(), dtype=st.sampled_from(["int64", "int32", "float32"]),
)  # fmt: skip
def test_sums_up_to_each_place(
    shape: list[int], data: st.DataObject, exclusive: bool, reverse: bool, dtype: str, tmp_path: Path
) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    kinds = {"int64": TensorProto.INT64, "int32": TensorProto.INT32, "float32": TensorProto.FLOAT}
    nodes = [
        node("Cast", "x", "typed", to=kinds[dtype]),
        node("CumSum", "typed axis", "sum", exclusive=int(exclusive), reverse=int(reverse)),
        node("Cast", "sum", "y", to=TensorProto.FLOAT),
    ]
    module = import_onnx(save(model(nodes, {"x": shape}, {"axis": np.int64(axis)}), tmp_path)).module
    assert "cumsum" not in [op_name(value) for _, value in bindings(module["main"])]
    x = np.random.default_rng(0).integers(-9, 10, shape).astype(np.float32)
    turned = np.flip(x, axis) if reverse else x
    expected = np.cumsum(turned, axis) - (turned if exclusive else 0)
    expected = np.flip(expected, axis) if reverse else expected
    np.testing.assert_array_equal(Interpreter(module).run({"x": x})[0], expected)


@pytest.mark.parametrize("size", [1, 2, 31, 64, 100])
def test_additions_grow_with_the_logarithm(size: int, tmp_path: Path) -> None:
    proto = model([node("CumSum", "x axis", "y")], {"x": [1, size]}, {"axis": np.int64(1)})
    module = import_onnx(save(proto, tmp_path)).module
    names = [op_name(value) for _, value in bindings(module["main"])]
    assert names.count("add") == int(np.ceil(np.log2(size)))
