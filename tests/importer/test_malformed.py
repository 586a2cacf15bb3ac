"""Models that ONNX's checker takes, and that make no sense: one line names the node, and no process ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_models import expected, model, node, normal, save

from hwptq.errors import UnsupportedError
from hwptq.evaluate import compile_operator
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx import importer
from hwptq.frontends.onnx.importer import import_onnx

SLICED = {"starts": np.array([0]), "ends": np.array([4]), "axes": np.array([2])}


def refusal(folder: Path, proto: onnx.ModelProto) -> str:
    with pytest.raises(UnsupportedError) as caught:
        import_onnx(save(proto, folder))
    return "\n".join(caught.value.lines())


def unchecked(nodes: list[onnx.NodeProto], constants: dict[str, Any], shape: list[int]) -> onnx.ModelProto:
    """A model, without the inference of shapes that would fall over it."""
    proto = model([node("Identity", "x", "y")], {"x": shape}, constants)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return proto


@pytest.mark.parametrize(
    ("before", "constants"),
    [
        (node("Resize", "x - k", "p"), {"k": np.float32([-1] * 4)}),
        (node("Pad", "x k", "p"), {"k": np.array([0, 0, -9, 0, 0, 0, 0, 0])}),
        (node("Conv", "x k", "p"), {"k": normal(0, 3, 3, 9, 9)}),
        (node("MaxPool", "x", "p", kernel_shape=[9, 9]), {}),
    ],
)
def test_what_is_sliced_has_a_negative_size(
    tmp_path: Path, before: onnx.NodeProto, constants: dict[str, Any]
):
    nodes = [before, node("Slice", "p starts ends axes", "y", "cut")]
    said = refusal(tmp_path, unchecked(nodes, {**SLICED, **constants}, [1, 3, 6, 6]))
    assert "node 'cut' (Slice)" in said
    assert "negative size" in said


@pytest.mark.parametrize("index", [5, -6, 2**36])
def test_a_constant_index_beyond_the_axis(tmp_path: Path, index: int):
    proto = model([node("Gather", "x i", "y", "token", axis=1)], {"x": [1, 5, 8]}, {"i": np.array(index)})
    assert "node 'token': an index lies beyond the 5 that there are" in refusal(tmp_path, proto)


@pytest.mark.parametrize("index", [0, 4, -1, -5])
def test_a_constant_index_within_the_axis(tmp_path: Path, index: int):
    proto = model([node("Gather", "x i", "y", "token", axis=1)], {"x": [1, 5, 8]}, {"i": np.array(index)})
    x = normal(0, 1, 5, 8)
    (found,) = Interpreter(import_onnx(save(proto, tmp_path)).module).run({"x": x})
    assert np.array_equal(found, expected(proto, {"x": x})[0])


def test_no_index_of_the_data_reads_beyond_a_table(tmp_path: Path, capfd: Any):
    """It is clamped; and TVM, which warns of what it doesn't check, has nothing to warn of."""
    table = normal(1, 6, 4)
    proto = model(
        [node("Gather", "t x", "y", "table")], {"x": [1, 3]}, {"t": table}, dtype=onnx.TensorProto.INT64
    )
    module = import_onnx(save(proto, tmp_path)).module
    found = Interpreter(module).run({"x": np.array([[0, -1, 2**40]])})[0]
    assert np.array_equal(found, table[[[0, 5, 5]]])
    assert "segfault" not in capfd.readouterr().err


def test_a_rule_that_falls_over_a_node_names_it(tmp_path: Path):
    nodes = [node("ScatterND", "x i u", "y", "scatter")]
    constants = {"i": np.float32([[0.5]]), "u": normal(1, 1, 6)}
    assert "node 'scatter' (ScatterND)" in refusal(tmp_path, unchecked(nodes, constants, [4, 6]))


def test_a_constant_that_tvm_cannot_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """TVM's own Python falls over attributes, with any exception."""

    def fold(module: Any) -> Any:
        raise IndexError("list index\nout of range")

    monkeypatch.setattr(importer.relax.transform, "FoldConstant", lambda: fold)
    proto = model([node("Relu", "x", "y", "relu")], {"x": [1, 3]})
    assert "a constant of the model (out of range)" in refusal(tmp_path, proto)


def test_an_operator_that_tvm_cannot_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def compile(*_: Any, **__: Any) -> Any:
        raise IndexError("list index out of range")

    proto = model([node("Tan", "x", "y", "sums")], {"x": [1, 3]})
    module = import_onnx(save(proto, tmp_path)).module
    monkeypatch.setattr(compile_operator.tvm, "compile", compile)
    monkeypatch.setattr(compile_operator, "_COMPILED", {})
    with pytest.raises(ValueError, match=r"node 'sums': TVM can't compute .*list index out of range"):
        Interpreter(module).run({"x": normal(0, 1, 3)})
