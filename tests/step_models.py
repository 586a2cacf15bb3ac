"""A language model of one step, with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx_models import normal

WORDS, CONTEXT = 11, 6


def step_model(file: Path) -> None:
    """Write step_graph to a file."""
    onnx.save(step_graph(), file)


def step_graph() -> onnx.ModelProto:
    """logits = (mean of embeddings so far) * W, the cache [1,1,6,8] filled by Where; a node is named take."""
    held = {"table": normal(1, WORDS, 8), "w": normal(2, 8, WORDS), "places": np.arange(CONTEXT)[:, None]}
    nodes = [
        helper.make_node("Gather", ["table", "t"], ["take"], name="take"),
        helper.make_node("Equal", ["places", "at"], ["here"]),
        helper.make_node("Where", ["here", "take", "past.k"], ["new.k"]),
        helper.make_node("ReduceMean", ["new.k"], ["mean"], axes=[2], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["y"]),
    ]
    inputs = [
        helper.make_tensor_value_info("t", TensorProto.INT64, [1, 1]),
        helper.make_tensor_value_info("at", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("past.k", TensorProto.FLOAT, [1, 1, CONTEXT, 8]),
    ]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, WORDS]),
        helper.make_tensor_value_info("new.k", TensorProto.FLOAT, [1, 1, CONTEXT, 8]),
    ]
    constants = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in held.items()]
    graph = helper.make_graph(nodes, "step", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
