"""A Llama with random weights as ONNX: a step whose caches Where writes, or a text at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_THETA = 10000.0
_HIDING = np.float32(-3e38)


@dataclass(frozen=True)
class Llama:
    """Sizes; those of a model of 1 B but for its number of layers and words are 2048, 8192, 32, 8, 64."""

    width: int = 1024
    inner: int = 4096
    heads: int = 16
    shared: int = 4
    size: int = 64
    layers: int = 2
    words: int = 1024
    context: int = 512


class _Graph:
    def __init__(self, form: Llama, tokens: int = 1):
        self.form, self.tokens, self.rng = form, tokens, np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def op(self, kind: str, inputs: Sequence[str], out: str = "", **attributes: object) -> str:
        """A node; the name of its result."""
        out = out or f"{kind}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], out, **attributes))
        return out

    def constant(self, value: object, dtype: type = np.float32) -> str:
        name = f"constant.{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        weight = self.rng.standard_normal((inputs, outputs), np.float32) * np.float32(inputs**-0.5)
        return self.op("MatMul", [x, self.constant(weight)])

    def norm(self, x: str) -> str:
        mean = self.op("ReduceMean", [self.op("Mul", [x, x])], axes=[-1], keepdims=1)
        root = self.op("Sqrt", [self.op("Add", [mean, self.constant(1e-5)])])
        return self.op("Mul", [self.op("Div", [x, root]), self.constant(np.ones(self.form.width))])

    def of_heads(self, x: str, inputs: int, heads: int) -> str:
        size = self.form.size
        wide = self.op(
            "Reshape",
            [self.dense(x, inputs, heads * size), self.constant([1, self.tokens, heads, size], np.int64)],
        )
        return self.op("Transpose", [wide], perm=[0, 2, 1, 3])

    def turned(self, x: str, cos: str, sin: str) -> str:
        half = self.form.size // 2
        ends = [self.constant([at], np.int64) for at in (0, half, 2 * half)]
        axis = self.constant([3], np.int64)
        low, high = (self.op("Slice", [x, ends[i], ends[i + 1], axis]) for i in range(2))
        across = self.op("Concat", [self.op("Neg", [high]), low], axis=-1)
        return self.op("Add", [self.op("Mul", [x, cos]), self.op("Mul", [across, sin])])

    def repeated(self, x: str) -> str:
        form = self.form
        shape = [1, form.shared, form.heads // form.shared, form.context, form.size]
        wide = self.op("Unsqueeze", [x, self.constant([2], np.int64)])
        wide = self.op("Expand", [wide, self.constant(shape, np.int64)])
        return self.op("Reshape", [wide, self.constant([1, form.heads, form.context, form.size], np.int64)])


def decoding_step(form: Llama) -> onnx.ModelProto:
    """(input_ids int64 [1,1], position int64 [1], past.N.key and .value [1,G,S,D]) -> (logits, present.…)."""
    g = _Graph(form)
    angles = np.arange(form.context)[:, None] * _THETA ** (-np.arange(0, form.size, 2) / form.size)
    tables = (np.concatenate([f(angles)] * 2, axis=1) for f in (np.cos, np.sin))
    cos, sin = (g.op("Gather", [g.constant(t[None, None]), "position"], axis=2) for t in tables)
    places = g.constant(np.arange(form.context), np.int64)
    here = g.op("Equal", [g.constant(np.arange(form.context)[:, None], np.int64), "position"])
    mask = g.op("Where", [g.op("LessOrEqual", [places, "position"]), g.constant(0.0), g.constant(_HIDING)])
    table = g.constant(g.rng.standard_normal((form.words, form.width), np.float32) * np.float32(0.02))
    x = g.op("Gather", [table, "input_ids"])
    for layer in range(form.layers):
        x = _layer(g, x, layer, (cos, sin), here, mask)
    g.op("MatMul", [g.norm(x), g.op("Transpose", [table], perm=[1, 0])], "logits")
    past = [form.shared, form.context, form.size]
    names = [f"{layer}.{kind}" for layer in range(form.layers) for kind in ("key", "value")]
    value = helper.make_tensor_value_info
    inputs = [value("input_ids", TensorProto.INT64, [1, 1]), value("position", TensorProto.INT64, [1])]
    inputs += [value(f"past.{name}", TensorProto.FLOAT, [1, *past]) for name in names]
    outputs = [value("logits", TensorProto.FLOAT, [1, 1, form.words])]
    outputs += [value(f"present.{name}", TensorProto.FLOAT, [1, *past]) for name in names]
    graph = helper.make_graph(g.nodes, "llama", inputs, outputs, g.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def reading(form: Llama) -> onnx.ModelProto:
    """(input_ids int64 [1,T]) -> (logits): a text of `context` tokens, without caches."""
    g = _Graph(form, form.context)
    angles = np.arange(form.context)[:, None] * _THETA ** (-np.arange(0, form.size, 2) / form.size)
    cos, sin = (g.constant(np.concatenate([f(angles)] * 2, axis=1)[None, None]) for f in (np.cos, np.sin))
    mask = g.constant(np.triu(np.full((form.context, form.context), _HIDING), 1)[None, None])
    table = g.constant(g.rng.standard_normal((form.words, form.width), np.float32) * np.float32(0.02))
    x = g.op("Gather", [table, "input_ids"])
    for layer in range(form.layers):
        x = _layer(g, x, layer, (cos, sin), "", mask)
    g.op("MatMul", [g.norm(x), g.op("Transpose", [table], perm=[1, 0])], "logits")
    value = helper.make_tensor_value_info
    inputs = [value("input_ids", TensorProto.INT64, [1, form.context])]
    outputs = [value("logits", TensorProto.FLOAT, [1, form.context, form.words])]
    graph = helper.make_graph(g.nodes, "llama", inputs, outputs, g.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _layer(g: _Graph, x: str, layer: int, turns: tuple[str, str], here: str, mask: str) -> str:
    """here: which rows of caches are written; without it there are none."""
    form = g.form
    heads = form.heads * form.size
    a = g.norm(x)
    q = g.turned(g.of_heads(a, form.width, form.heads), *turns)
    new = {
        "key": g.turned(g.of_heads(a, form.width, form.shared), *turns),
        "value": g.of_heads(a, form.width, form.shared),
    }
    k, v = (
        g.repeated(
            g.op("Where", [here, row, f"past.{layer}.{kind}"], f"present.{layer}.{kind}") if here else row
        )
        for kind, row in new.items()
    )
    scores = g.op("MatMul", [q, g.op("Transpose", [k], perm=[0, 1, 3, 2])])
    scores = g.op("Mul", [scores, g.constant(form.size**-0.5)])
    shares = g.op("Softmax", [g.op("Add", [scores, mask])], axis=-1)
    mixed = g.op("Transpose", [g.op("MatMul", [shares, v])], perm=[0, 2, 1, 3])
    flat = g.op("Reshape", [mixed, g.constant([1, g.tokens, heads], np.int64)])
    x = g.op("Add", [x, g.dense(flat, heads, form.width)])
    a = g.norm(x)
    gate, up = (g.dense(a, form.width, form.inner) for _ in range(2))
    inner = g.op("Mul", [g.op("Mul", [gate, g.op("Sigmoid", [gate])]), up])
    return g.op("Add", [x, g.dense(inner, form.inner, form.width)])
