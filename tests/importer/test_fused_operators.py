"""Operators that ONNX Runtime fuses: imported, they compute what it computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import normal

from hwptq.errors import UnsupportedError
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_proto

HEADS, SIZE, BATCH = 4, 16, 1


def alone(
    op: str, inputs: Sequence[str], outputs: Mapping[str, Sequence[int]], values: Mapping[str, np.ndarray],
    constants: Mapping[str, np.ndarray], domain: str = "com.microsoft", **attributes: Any,
) -> onnx.ModelProto:  # fmt: skip
    """A model of one node."""
    node = helper.make_node(op, inputs, list(outputs), name="node", domain=domain, **attributes)
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, v.shape) for k, v in values.items()],
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, s) for k, s in outputs.items() if k],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def same(proto: onnx.ModelProto, values: Mapping[str, np.ndarray], atol: float = 3e-6) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    wanted = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, dict(values))
    found = Interpreter(import_proto(proto, "model").module).run(dict(values))
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=atol)


def attention(
    steps: int = 5, past: int = 3, shared: int = 2, packed: bool = False, rotary: int = 1, **attributes: Any
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    width = (HEADS + 2 * shared) * SIZE if packed else HEADS * SIZE
    values = {"q": normal(0, BATCH, steps, width)}
    if not packed:
        values |= {name: normal(i, BATCH, steps, shared * SIZE) for i, name in enumerate("kv", 1)}
    if past:
        values |= {name: normal(i, BATCH, shared, past, SIZE) for i, name in enumerate(("pk", "pv"), 3)}
    angles = np.arange(32)[:, None] / 10 ** (np.arange(SIZE // 2) / 4)
    caches = {"cos": np.cos(angles), "sin": np.sin(angles)} if rotary else {}
    constants = {name: array.astype(np.float32) for name, array in caches.items()}
    constants |= {"last": np.full(BATCH, past + steps - 1, np.int32), "all": np.array(past + steps, np.int32)}
    names = [n if n in values else "" for n in ("q", "k", "v", "pk", "pv")] + ["last", "all", *caches]
    total = (BATCH, shared, past + steps, SIZE)
    outputs = {"y": (BATCH, steps, HEADS * SIZE), "keys": total, "values": total}
    attributes |= {"num_heads": HEADS, "kv_num_heads": shared, "do_rotary": rotary}
    return alone("GroupQueryAttention", names, outputs, values, constants, **attributes), values


@pytest.mark.parametrize(
    "arguments",
    [
        {}, {"packed": True}, {"rotary": 0}, {"rotary_interleaved": 1}, {"local_window_size": 3},
        {"softcap": 5.0}, {"scale": 0.3}, {"steps": 1, "past": 7}, {"shared": 4, "past": 2}, {"past": 0},
    ],
    ids=str,
)  # fmt: skip
def test_grouped_query_attention(arguments: dict[str, Any]) -> None:
    same(*attention(**arguments))


def test_what_attention_does_not_know_is_refused() -> None:
    proto, _ = attention(smooth_softmax=1)
    with pytest.raises(UnsupportedError, match=r"'node' \(GroupQueryAttention\): smooth_softmax"):
        import_proto(proto, "model")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("simplified", [False, True])
def test_norms_with_the_addition_before_them(simplified: bool, bias: bool) -> None:
    values = {"x": normal(0, 1, 5, 12), "skip": normal(1, 1, 5, 12)}
    constants = {"gamma": normal(2, 12), "beta": normal(3, 12), "bias": normal(4, 12)}
    names = ["x", "skip", "gamma", *([] if simplified else ["beta"]), *(["bias"] if bias else [])]
    op = "SkipSimplifiedLayerNormalization" if simplified else "SkipLayerNormalization"
    outputs: dict[str, Sequence[int]] = {"y": (1, 5, 12)}
    proto = alone(op, names, outputs, values, {n: constants[n] for n in names[2:]}, epsilon=1e-5)
    proto.graph.node[0].output.extend(["", "", "sum"])
    proto.graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, (1, 5, 12)))
    same(proto, values)


def test_a_norm_without_a_domain_and_a_gate() -> None:
    values, gamma = {"x": normal(0, 1, 5, 12)}, {"gamma": normal(1, 12)}
    outputs = {"y": (1, 5, 12)}
    norm = alone("SimplifiedLayerNormalization", ["x", "gamma"], outputs, values, gamma, "", epsilon=1e-6)
    same(norm, values)
    same(alone("QuickGelu", ["x"], outputs, values, {}, alpha=1.3), values)
