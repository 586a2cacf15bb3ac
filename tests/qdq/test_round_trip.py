"""Our own model.qdq.onnx comes back: it is compiled to the same integers, and ONNX Runtime loads it,
where it is installed.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import model, node, normal, save
from real_models import RealModel
from recurrent_models import MODELS, samples

from hwptq import Options
from hwptq.data.dataset import from_batches, open_dataset
from hwptq.data.preprocess import load_preprocess
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.model import Model
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.ir.dataflow import constant
from hwptq.ir.operator import WeightedOperator
from hwptq.passes.graph.quantizable import float_reasons
from hwptq.pipeline.stages import integers, quantize
from hwptq.pipeline.step import Job
from hwptq.qdq_export import export_qdq
from hwptq.report.coverage import integer_nodes
from hwptq.targets import load_target


def _again(found: Model, data: list[dict[str, np.ndarray]], folder: Path, keep_float: str = "") -> None:
    options = Options(recipe="fast", keep_float=keep_float or None)
    job = Job(load_target("x86-64-avx2"), from_batches(data, found.inputs), options)
    quantized = quantize(found.module, job)
    path = folder / "model.qdq.onnx"
    onnx.save(export_qdq(quantized.qdq, found.outputs, "again"), str(path))
    first, second = integers(quantized, job), integers(quantize(import_onnx(path).module, job), job)
    assert float_reasons(first["main"]) == float_reasons(second["main"])
    layers = [
        [constant(a) for _, op, args in integer_nodes(m) if isinstance(op, WeightedOperator) for a in args]
        for m in (first, second)
    ]
    assert len(layers[0]) == len(layers[1])
    for one, other in zip(*layers, strict=True):
        np.testing.assert_array_equal(one, other)
    for sample in data[:2]:
        results = [Interpreter(m).run(sample) for m in (first, second)]
        for one, other in zip(*results, strict=True):
            np.testing.assert_array_equal(one, other)
    if find_spec("onnxruntime") is not None:
        runtime = import_module("onnxruntime")
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        assert [o.name for o in session.get_outputs()] == list(found.outputs)


@pytest.mark.parametrize(
    "case",
    [
        RealModel("digits", "digits.onnx", calibration="calibration.npz", evaluation="evaluation.npz"),
        RealModel("ci-tiny", "resnet8.onnx", "resnet8.preprocess.toml"),
        RealModel("tiny-kws"),
    ],
    ids=["demo", "resnet8", "kws"],
)
def test_real_models(case: RealModel, tmp_path: Path) -> None:
    given = case.arguments(4, 1)
    found = import_onnx(given["model"])
    preprocess = load_preprocess(given["preprocess"])
    data = open_dataset(case.path / case.calibration, found.inputs, preprocess).take(4)
    _again(found, [sample.inputs for sample in data], tmp_path)


def test_products_of_tokens_with_biases(tmp_path: Path) -> None:
    """ONNX Runtime would make Gemm of them, and reject the Q that it writes for these."""
    nodes = [
        node("MatMul", "x w", "a", "first"),
        node("Add", "a b", "c", "bias"),
        node("Relu", "c", "r", "relu"),
        node("MatMul", "r v", "d", "second"),
        node("Add", "d e", "y", "last"),
    ]
    constants = {"w": normal(1, 16, 8), "b": normal(2, 8), "v": normal(3, 8, 4), "e": normal(4, 4)}
    proto = model(nodes, {"x": [1, 5, 16]}, constants)
    _again(import_onnx(save(proto, tmp_path)), [{"x": normal(i, 1, 5, 16)} for i in range(3)], tmp_path)


def test_a_function_by_tanh(tmp_path: Path) -> None:
    """Gelu as opset 20 has it is a table, which its file has as a chain of operators."""
    nodes = [
        node("MatMul", "x w", "a", "first"),
        node("Gelu", "a", "g", "function", approximate="tanh"),
        node("MatMul", "g v", "y", "last"),
    ]
    proto = model(nodes, {"x": [1, 5, 16]}, {"w": normal(1, 16, 8), "v": normal(3, 8, 4)}, opset=20)
    found = import_onnx(save(proto, tmp_path))
    _again(found, [{"x": normal(i, 1, 5, 16)} for i in range(3)], tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_recurrent_layers(name: str, tmp_path: Path) -> None:
    """Each result of a layer has a Q and a DQ of its own, all of one scale; weights are codes of rows."""
    proto = MODELS[name]()
    _again(import_onnx(save(proto, tmp_path)), samples(proto, 4), tmp_path)


_BRANCHES = (
    node("Conv", "x w", "a", "first", pads=[1] * 4),
    node("Relu", "a", "b", "relu"),
    node("Conv", "b v", "c", "left", pads=[1] * 4),
    node("Sigmoid", "c", "d", "gate"),
    node("Mul", "d b", "e", "product"),
    node("Conv", "e v", "f", "last", pads=[1] * 4),
    node("Reshape", "f rows", "g", "turned"),
    node("Softmax", "g", "y", "scores"),
)


@pytest.mark.parametrize("kept", ["left", "gate", "product", "scores"])
def test_nodes_kept_in_float(kept: str, tmp_path: Path) -> None:
    """A Q behind a node doesn't tell that it is in float: the file does."""
    constants = {"w": normal(1, 8, 3, 3, 3), "v": normal(2, 8, 8, 3, 3), "rows": np.array([-1, 4])}
    proto = model(_BRANCHES, {"x": [1, 3, 6, 6]}, constants)
    samples = [{"x": normal(i, 1, 3, 6, 6)} for i in range(3)]
    _again(import_onnx(save(proto, tmp_path)), samples, tmp_path, f"^{kept}$")
