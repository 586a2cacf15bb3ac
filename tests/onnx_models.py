"""Small ONNX models, written down node by node, and what they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator


def node(op: str, inputs: str, output: str, name: str = "", **attributes: Any) -> onnx.NodeProto:
    """`inputs` are separated by spaces, "-" stands for one that is left out."""
    names = ["" if n == "-" else n for n in inputs.split()]
    return helper.make_node(op, names, output.split(), name=name, **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str | None]],
    constants: Mapping[str, np.ndarray] | None = None,
    outputs: Sequence[str] | None = None,
    opset: int = 17,
    dtype: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model with inputs and outputs of `dtype`; without `outputs`, its output is that of the last node."""
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    given = [helper.make_tensor_value_info(n, dtype, list(s)) for n, s in inputs.items()]
    names = outputs or [nodes[-1].output[0]]
    results = [helper.make_tensor_value_info(n, dtype, None) for n in names]
    graph = helper.make_graph(list(nodes), "graph", given, results, tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(proto)


def save(proto: onnx.ModelProto, folder: Path, name: str = "model") -> Path:
    """The path of <name>.onnx in `folder`."""
    path = folder / f"{name}.onnx"
    onnx.save(proto, str(path))
    return path


def expected(proto: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs, by the reference of ONNX itself."""
    return ReferenceEvaluator(proto).run(None, dict(inputs))


def normal(seed: int, *shape: int, spread: float = 1.0) -> np.ndarray:
    """float32 values around 0."""
    return (np.random.default_rng(seed).standard_normal(shape) * spread).astype(np.float32)
